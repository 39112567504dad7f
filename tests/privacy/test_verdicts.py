"""Verdicts on detectors whose knowledge is known: false claims stay rare, true ones are found."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from redsam.errors import InputError
from redsam.privacy import Rule, claim

sys.path.insert(0, str(Path(__file__).parent))
from simulated import (
    answer,
    by_half,
    everything,
    knows,
    nothing,
    one_person,
    one_random,
    rare_half,
    run,
    same_tile,
    scored,
    strangers,
    tied,
)


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


# What a detector does with names it does not know, each with what the published grid alone would take for knowledge.
BLIND = {
    "one random tile": one_random,
    "always the same tile": same_tile,
    "prefers one person": one_person,
    "some faces attract any name": scored(faces_vary=1),
    "and some names mark more": scored(faces_vary=1, names_vary=1.5),
    "the most attractive face": scored(faces_vary=1, best=True),
    "arbitrary embedding": scored(pairs_vary=1),
    "arbitrary embedding, best": scored(pairs_vary=1, best=True),
    "every name tied to a face": tied(),
    "half of the people": by_half,
    "one name in thirty says which half": rare_half,
}


def false(detector: object, *, known: int, audits: int = 20, names: int = 19) -> int:
    """Audits with a false "knows"."""
    found = 0
    for seed in range(audits):
        claims = claim(answer(detector, names=names, grids=100, seed=seed), names, Rule())  # type: ignore[arg-type]
        found += any(verdict == "knows" for verdict, _ in claims.verdicts[known:])
    return found


@pytest.mark.parametrize("known", [0, 9, 18])
@pytest.mark.parametrize("name", BLIND)
def test_false_alarms(name: str, known: int) -> None:
    """Audits with a false "knows", of 20: at most 4, which a rate of 0.05 exceeds in 0.3 % of cases."""
    assert false(knows(known, 0.9, BLIND[name]), known=known) <= 4


@pytest.mark.parametrize("known", [10, 18])
def test_marking_those_who_are_not_recognised_is_not_knowing_them(known: int) -> None:
    """Names compete for people: whoever is left over is marked for every unknown name, invented ones too."""
    assert false(knows(known, 1.0, strangers(known)), known=known) <= 4


def test_firm_ties_cost_power_and_not_the_error_rate() -> None:
    """A model that ties every name to some face as firmly as it knows half of them: nothing can be claimed."""
    results = run(knows(10, 0.9, tied()), seed=1)
    assert share(results, "knows") < 0.5
    assert "an invented or wrong name singles somebody out as firmly" in {r.reason for r in results[:10]}


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
