"""Tests and corrections against scipy, closed forms and brute force."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from redsam.privacy import evidence


def test_one_mark_a_grid_is_the_binomial() -> None:
    marked = np.zeros((20, 9), dtype=np.int64)
    marked[np.arange(20), np.arange(20) % 9] = 1
    own = np.where(np.arange(20) < 6, np.arange(20) % 9, (np.arange(20) + 1) % 9)
    assert evidence.tile_test(marked, own) == pytest.approx(stats.binom.sf(5, 20, 1 / 9), rel=1e-9)


def test_the_tile_test_against_every_assignment() -> None:
    rng = np.random.default_rng(3)
    marked = rng.integers(0, 4, (5, 4))
    own = rng.integers(0, 4, 5)
    seen = marked[np.arange(5), own].sum()
    sums = [marked[np.arange(5), list(who)].sum() for who in product(range(4), repeat=5)]
    assert evidence.tile_test(marked, own) == pytest.approx(np.mean(np.array(sums) >= seen))
    rng = np.random.default_rng(0)  # and Monte Carlo with the +1 correction
    drawn = marked[np.arange(5), rng.integers(0, 4, (4000, 5))].sum(1)
    assert evidence.tile_test(marked, own) == pytest.approx((1 + (drawn >= seen).sum()) / 4001, abs=0.03)


@pytest.mark.parametrize("constant", [0, 3])
def test_marking_all_or_nothing_says_nothing(constant: int) -> None:
    assert evidence.tile_test(np.full((50, 9), constant), np.zeros(50, dtype=np.int64)) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["coin", "rare", "uniform", "constant"])
def test_a_skill_at_the_margin_is_rarely_called_below_it(kind: str) -> None:
    """False alarms of `shortfall_test` at most 0.05 also where a t test's are not, in the skewed "rare" case."""
    rng = np.random.default_rng(0)
    draws = {
        "coin": rng.choice([-0.6, 1.0], (2000, 45)),
        "rare": (rng.random((2000, 45)) < 0.2).astype(float),
        "uniform": rng.uniform(-0.4, 0.8, (2000, 45)),
        "constant": np.full((2000, 45), 0.2),
    }[kind]
    false = np.mean([evidence.shortfall_test(x, 0.2) <= 0.05 for x in draws])
    assert false <= 0.05
    bounds = [evidence.upper_bound(x, 0.05) for x in draws[:200]]
    assert np.mean(np.array(bounds) < draws.mean()) <= 0.08


def test_bounds_narrow_with_grids_and_hold_their_mean() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for n in (20, 80, 320):
        x = rng.choice([-0.125, 1.0], n)
        lo, hi = evidence.lower_bound(x, 0.05), evidence.upper_bound(x, 0.05)
        assert lo <= x.mean() <= hi
        widths.append(hi - lo)
    assert widths[0] > widths[1] > widths[2]
    assert evidence.upper_bound(np.empty(0), 0.05) == pytest.approx(1)
    assert evidence.shortfall_test(x, evidence.upper_bound(x, 0.05)) == pytest.approx(0.05, rel=1e-3)


def test_corrections() -> None:
    p = np.array([0.01, 0.04, 0.03, 0.005])
    assert evidence.adjusted(p, "holm").tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    rng = np.random.default_rng(1)
    for _ in range(20):
        p = rng.random(9) ** 3
        np.testing.assert_allclose(evidence.adjusted(p, "benjamini-hochberg"), stats.false_discovery_control(p))
    assert evidence.adjusted(np.empty(0), "holm").size == 0
