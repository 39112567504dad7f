"""lab_text: chance is drawn as stated, areas count pairs, a model that knows beside one that does not listen."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import lab_text
import numpy as np
import pytest
import torch
from lab_text import auroc, iou, measure, rectangle, stretched

from redsam.types import Scene

NAMES = ("cat", "dog", "sheep")


def scene(i: int) -> Scene:
    """A square of the image's own name, somewhere; a region without a name beside it."""
    masks = torch.zeros(2, 40, 60, dtype=torch.bool)
    masks[0, 2 + i : 14 + i, 1 + 2 * i : 20 + 2 * i] = True
    masks[1, 30:, :] = True
    return Scene(id=f"s{i}", image=torch.full((3, 40, 60), i / 255), masks=masks, meta={"classes": [NAMES[i % 3], ""]})


class Model:
    """Answers from the scene itself, or the same for every name."""

    def __init__(self, blind: bool) -> None:
        self.blind = blind
        self.net = self

    def encode(self, images: Any, *, exact: bool) -> Any:
        number = round(float(images[0, 0, 0, 0]) * 255)
        frame = SimpleNamespace(logits=lambda x: x)
        return SimpleNamespace(features=number, frames=[frame])

    def decode(self, number: int, texts: list[list[str]]) -> tuple[torch.Tensor, None, torch.Tensor]:
        truth = scene(number)
        name = truth.meta["classes"][0]
        there = torch.tensor([[1.0 if self.blind or t == name else -1.0 for t in texts[0]]])
        masks = torch.where(truth.masks[0], 1.0, -1.0) * torch.ones(len(texts[0]), 1, 1)
        if not self.blind:
            masks = torch.where(there[0, :, None, None] > 0, masks, -1.0)
        return masks[None], None, there


def run(blind: bool) -> dict[str, Any]:
    data = [scene(i) for i in range(12)]
    return measure(Model(blind), data, [*NAMES, "zebra"], smallest=0.0)


def test_a_model_that_knows_beats_every_chance() -> None:
    row = run(blind=False)
    assert (row["pairs"], row["images"], row["names asked"], row["not taught"]) == (12, 12, sorted(NAMES), 0)
    assert row["answer"][0] == row["mask"][0] == 1.0 and row["other name"][0] == row["other answer"][0] == 0.0
    assert 0 < row["other image"][0] < 1 and row["whole"][0] <= row["rectangle"][0] < 1
    assert all(row[f"answer - {key}"][1] > 0 for key in lab_text.CHANCES)
    assert row["presence"]["pooled"][0] == row["presence"]["within a name"][0] == 1.0


def test_a_model_that_does_not_listen_is_no_better_under_the_right_name() -> None:
    row = run(blind=True)
    assert row["mask"][0] == row["other name"][0] == row["other answer"][0] == 1.0
    assert row["answer - other answer"] == [0.0, 0.0, 0.0] and row["presence"]["pooled"][0] == 0.5


def test_pixels_without_a_name_count_neither_way() -> None:
    truth, guess, ignored = (np.zeros((4, 4), bool) for _ in range(3))
    truth[:2], guess[:3], ignored[2] = True, True, True
    assert iou(guess, truth, ignored) == 1.0 and iou(guess, truth, ~np.ones((4, 4), bool)) == pytest.approx(2 / 3)
    assert rectangle((10, 20), 0.5).sum() == 5 * 10 or rectangle((10, 20), 0.5).sum() == 6 * 10
    assert stretched(truth, (8, 8)).sum() == 32


def test_the_area_counts_pairs() -> None:
    rng = np.random.default_rng(0)
    scores, truth = rng.integers(0, 6, 60).astype(float), rng.random(60) < 0.4
    wins = [(p > n) + 0.5 * (p == n) for p in scores[truth] for n in scores[~truth]]
    assert auroc(scores, truth, np.ones(60)) == pytest.approx(np.mean(wins))
    twice = np.where(truth, 2.0, 1.0)
    assert auroc(scores, truth, twice) == pytest.approx(np.mean(wins))
    assert np.isnan(auroc(scores, np.ones(60, bool), np.ones(60)))
