"""The published rule, by hand and in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest

from redsam.privacy import Counts, Geometry, Marks, chance_lines, count, marks
from redsam.privacy.scoring import spreads

G = Geometry(tile=(10, 10))  # padded 16


def test_boxes_to_tiles() -> None:
    boxes = [
        (0.0, 0.0, 16.0, 16.0),  # exactly one padded tile: kept
        (1.0, 1.0, 5.0, 5.0),  # the same tile again: one mark
        (0.0, 0.0, 16.1, 4.0),  # wider than a tile
        (0.0, 0.0, 4.0, 16.1),  # taller
        (10.0, 0.0, 24.0, 4.0),  # straddles: its centre decides
        (math.nan, 0.0, 1.0, 1.0),
        (50.0, 0.0, 52.0, 1.0),  # centre outside
    ]
    assert marks(boxes, G) == Marks(tiles=frozenset({0, 1}), errors=4)


def test_nine_decisions() -> None:
    answer = Marks(tiles=frozenset({0, 4, 8}), errors=2)
    assert count(answer, 4, 9) == Counts(tp=1, fp=2, fn=0, tn=6, errors=2)
    assert count(answer, 3, 9) == Counts(tp=0, fp=3, fn=1, tn=5, errors=2)
    total = count(answer, 4, 9) + count(answer, 3, 9)
    assert (total.precision, total.recall) == (1 / 6, 1 / 2)
    assert total.f1 == pytest.approx(2 * (1 / 6 * 1 / 2) / (1 / 6 + 1 / 2))
    assert (Counts(fn=3).precision, Counts(fn=3).f1, Counts().recall) == (0, 0, 0)


def test_chance_lines_are_what_such_detectors_score() -> None:
    every = count(Marks(tiles=frozenset(range(9)), errors=0), 3, 9)
    line = chance_lines(9)["every tile"]
    assert (every.precision, every.recall, every.f1) == pytest.approx(tuple(line.values()))
    assert line["f1"] == pytest.approx(0.2)
    one = Counts()
    for tile in range(9):
        one += count(Marks(tiles=frozenset({tile}), errors=0), 3, 9)
    assert (one.precision, one.recall, one.f1) == pytest.approx(tuple(chance_lines(9)["one random tile"].values()))


def test_spread_over_resamples_against_its_closed_form() -> None:
    """With one mark each and hit rate h_g in grid g, recall has mean of h and variance sum h (1 - h) / G^2."""
    rng = np.random.default_rng(0)
    hits = rng.random((100, 3)) < 0.4
    found = spreads(hits, np.ones((100, 3), dtype=np.int64), seed=0)
    h = hits.mean(1)
    sd = math.sqrt(float((h * (1 - h)).sum())) / 100
    assert found["recall"].mean == pytest.approx(h.mean(), abs=4 * sd / math.sqrt(1000))
    assert found["recall"].sd == pytest.approx(sd, rel=0.1)
    assert found["precision"] == found["recall"] and found["f1"].mean == pytest.approx(found["recall"].mean)
    same = spreads(np.repeat(hits[:, :1], 3, 1), np.ones((100, 3), dtype=np.int64), seed=0)
    assert same["f1"].sd == pytest.approx(0, abs=1e-12)
