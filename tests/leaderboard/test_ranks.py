"""Ranks against a brute-force reading of "surely above"."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from redsam.leaderboard.ranks import standings

ends = st.tuples(st.integers(0, 20), st.integers(0, 20)).map(sorted)


def test_overlap_is_a_tie_and_a_gap_is_an_order() -> None:
    first, second, third = standings([(0.8, 0.7, 0.9), (0.6, 0.5, 0.75), (0.2, 0.1, 0.3)])
    assert (first.text, second.text, third.text) == ("1\N{EN DASH}2", "1\N{EN DASH}2", "3")
    assert (first.tied, second.tied, third.tied) == ((1,), (0,), ())


@settings(deadline=None)  # on a busy machine a first call takes long
@given(st.lists(ends, min_size=1, max_size=7))
def test_every_order_that_the_intervals_allow_lies_between_best_and_worst(spans: list[list[int]]) -> None:
    """Independent: place every entry at its ends and count; the extremes over all placements are best and worst."""
    found = standings([(sum(s) / 2, s[0], s[1]) for s in spans])
    for i, ((lo, hi), standing) in enumerate(zip(spans, found, strict=True)):
        others = [s for j, s in enumerate(spans) if j != i]
        luckiest = 1 + sum(all(v > hi for v in range(a, b + 1)) for a, b in others)
        unluckiest = 1 + sum(any(v >= lo for v in range(a, b + 1)) for a, b in others)
        assert (standing.best, standing.worst) == (luckiest, unluckiest)
        for j in standing.tied:
            assert i in found[j].tied
