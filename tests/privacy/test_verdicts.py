"""Verdicts on detectors whose knowledge is known: false claims stay rare, true ones are found."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from redsam.errors import InputError
from redsam.privacy import Rule

sys.path.insert(0, str(Path(__file__).parent))
from simulated import by_half, everything, knows, nothing, one_random, run, scored


def share(results: list, verdict: str) -> float:
    return float(np.mean([r.verdict == verdict for r in results]))


def test_a_perfect_detector() -> None:
    results = run(knows(19, 1.0, nothing))
    assert share(results, "knows") == 1
    for r in results:
        assert (r.counts.precision, r.counts.recall, r.skill) == (1, 1, pytest.approx(1))
        assert r.counts.tp + r.counts.fn == 3 * r.grids and r.counts.tn == 24 * r.grids


@pytest.mark.parametrize("detector", [nothing, everything])
def test_all_or_nothing_is_shown_not_to_know(detector: object) -> None:
    results = run(detector)  # type: ignore[arg-type]
    assert share(results, "does not know") == 1
    assert {round(r.skill, 9) for r in results} == {0}
    assert {round(r.f1[0], 9) for r in results} == {0.2 if detector is everything else 0.0}


# The detectors that know nobody, each with what the published grid alone would not tell from knowledge.
BLIND = {
    "one random tile": one_random,
    "some faces attract any name": scored(faces_vary=1),
    "and some names mark more": scored(faces_vary=1, names_vary=1.5),
    "the most attractive face": scored(faces_vary=1, best=True),
    "arbitrary embedding": scored(pairs_vary=1),
    "arbitrary embedding, best": scored(pairs_vary=1, best=True),
    "half of the people": by_half,
}


@pytest.mark.parametrize("name", BLIND)
def test_false_alarms(name: str) -> None:
    """Runs with a false "knows", over 20 audits: at most 3, which a rate of 0.05 exceeds in 1.6 % of cases."""
    runs = [run(BLIND[name], seed=s, grids=100) for s in range(20)]
    assert sum(any(r.verdict == "knows" for r in results) for results in runs) <= 3


def test_the_tile_test_alone_would_not_do() -> None:
    alone = [r.p_tile <= 0.05 for s in range(3) for r in run(BLIND["some faces attract any name"], seed=s)]
    assert np.mean(alone) > 0.15
    assert all(r.p_tile < 1e-6 for r in run(by_half))


@pytest.mark.parametrize("hit", [0.4, 0.8])
def test_power_with_half_of_the_people_known(hit: float) -> None:
    for seed in range(3):
        results = run(knows(10, hit, one_random), seed=seed)
        assert share(results[:10], "knows") == 1
        assert share(results[10:], "knows") == 0
        assert share(results[10:], "does not know") >= 0.6


def test_known_names_are_rarely_called_unknown() -> None:
    """Skill at the margin exactly, where "does not know" is false with rate at most alpha over all names."""
    wrong = sum(
        any(r.verdict == "does not know" for r in run(knows(19, 0.2, nothing), seed=s, grids=60)) for s in range(20)
    )
    assert wrong <= 3


def test_few_grids_leave_names_undecided() -> None:
    results = run(one_random, grids=4)
    assert {r.verdict for r in results} == {"undecided"}
    assert any(r.grids == 0 and r.reason == "never drawn into a grid" for r in run(one_random, grids=1))


def test_a_trace_below_the_margin_is_still_knowledge() -> None:
    results = run(knows(19, 0.2, nothing), grids=1500, rule=Rule(margin=0.5))
    assert {(r.verdict, r.reason) for r in results} == {("knows", "a trace, below the margin")}


@pytest.mark.parametrize("bad", [{"alpha": 0.0}, {"margin": 1.0}, {"correction": "bonferoni"}])
def test_rules_are_checked(bad: dict) -> None:
    with pytest.raises(InputError):
        Rule(**bad)
