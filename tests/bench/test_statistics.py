"""Intervals against scipy, against closed forms, and by simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from redsam.bench.statistics import (
    GROUPS,
    SHARED,
    difference_interval,
    gap_interval,
    image_sums,
    mean_interval,
    prepare,
    resamples,
)


def test_plain_case_equals_scipy_percentile_bootstrap() -> None:
    values = np.random.default_rng(0).beta(2, 1, size=60)
    got = mean_interval(values, np.ones(60), resamples(60, seed=1, count=20_000))
    oracle = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert got.value == pytest.approx(values.mean())
    assert got.lo == pytest.approx(oracle.low, abs=0.003)  # Monte Carlo error of a 2.5 % quantile at 20 000 draws
    assert got.hi == pytest.approx(oracle.high, abs=0.003)


def test_width_of_the_closed_form() -> None:
    """Clusters of equal size: the standard error is sd(cluster means) / sqrt(n), whatever happens inside."""
    rng = np.random.default_rng(3)
    clusters = rng.normal(size=(200, 1)) + 0.1 * rng.normal(size=(200, 8))
    owner = np.repeat(np.arange(200), 8)
    sums = image_sums(clusters.ravel(), owner, 200)
    got = mean_interval(sums, np.full(200, 8.0), resamples(200, seed=4, count=20_000))
    assert got.lo is not None and got.hi is not None
    expected = 2 * 1.96 * clusters.mean(1).std(ddof=0) / np.sqrt(200)
    assert got.hi - got.lo == pytest.approx(expected, rel=0.03)


def test_coverage_on_ragged_clusters() -> None:
    """About 95 % of the intervals hold the true mean; drawing prompts as if independent would hold far fewer."""
    rng = np.random.default_rng(5)
    rounds, images = 400, 60
    hit = naive = 0
    for i in range(rounds):
        counts = rng.integers(1, 9, size=images)
        owner = np.repeat(np.arange(images), counts)
        values = 0.6 + rng.normal(0, 0.15, size=images)[owner] + rng.normal(0, 0.05, size=counts.sum())
        weights = resamples(images, seed=i, count=500)
        got = mean_interval(image_sums(values, owner, images), counts.astype(float), weights)
        assert got.lo is not None and got.hi is not None
        hit += got.lo <= 0.6 <= got.hi
        half = 1.96 * values.std() / np.sqrt(len(values))
        naive += abs(values.mean() - 0.6) <= half
    assert 0.91 <= hit / rounds <= 0.98
    assert naive / rounds < 0.8


def test_paired_difference_is_narrower_than_unpaired() -> None:
    rng = np.random.default_rng(6)
    easy = rng.normal(0.7, 0.2, size=50)
    clean, adv = easy, easy - 0.3 + rng.normal(0, 0.01, size=50)
    ones, weights = np.ones(50), resamples(50, seed=7)
    paired = difference_interval((clean, ones), (adv, ones), weights)
    assert paired.value == pytest.approx((clean - adv).mean())
    assert paired.lo is not None and paired.hi is not None
    assert paired.hi - paired.lo < 0.01 < mean_width(clean, weights)
    # and it is the interval of the differences themselves
    direct = mean_interval(clean - adv, ones, weights)
    assert (paired.lo, paired.hi) == pytest.approx((direct.lo, direct.hi))


def mean_width(values: np.ndarray, weights: np.ndarray) -> float:
    got = mean_interval(values, np.ones(len(values)), weights)
    assert got.lo is not None and got.hi is not None
    return got.hi - got.lo


def test_seed_decides_everything() -> None:
    assert np.array_equal(resamples(9, seed=1, count=50), resamples(9, seed=1, count=50))
    assert not np.array_equal(resamples(9, seed=1, count=50), resamples(9, seed=2, count=50))
    assert (resamples(9, seed=1, count=50).sum(1) == 9).all()


def test_images_without_prompts_and_single_images() -> None:
    counts = np.array([0.0, 2.0, 0.0, 2.0])
    got = mean_interval(np.array([0.0, 1.0, 0.0, 2.0]), counts, resamples(4, seed=0))
    assert got.value == pytest.approx(0.75)
    assert got.lo == pytest.approx(0.5) and got.hi == pytest.approx(1.0)
    alone = mean_interval(np.array([1.0]), np.array([2.0]), resamples(1, seed=0))
    assert alone.value == 0.5 and alone.lo is None and alone.hi is None
    with pytest.raises(ValueError, match="no prompts"):
        mean_interval(np.zeros(2), np.zeros(2), resamples(2, seed=0))


def test_a_gap_between_other_images_has_the_width_of_two_independent_means() -> None:
    rng = np.random.default_rng(8)
    a, b = rng.normal(1.0, 1.0, size=150), rng.normal(0.2, 2.0, size=150)
    got = gap_interval((a, np.ones(150)), (b, np.ones(150)), seed=3)
    assert got.value == pytest.approx(a.mean() - b.mean()) and got.lo is not None and got.hi is not None
    expected = 2 * 1.96 * np.sqrt((a.var() + b.var()) / 150)
    assert got.hi - got.lo == pytest.approx(expected, rel=0.08)
    same = gap_interval((a, np.ones(150)), (a, np.ones(150)), seed=3)
    assert same.value == 0 and same.lo is not None and same.lo < -0.1, "drawn together, nothing would be left"
    one = gap_interval((a[:1], np.ones(1)), (b, np.ones(150)), seed=3)
    assert one.lo is None and one.hi is None


def test_many_images_share_their_draws_and_the_interval_is_scipys() -> None:
    """Above SHARED images the weights are bytes, drawn once for a number of images."""
    values = np.random.default_rng(8).beta(2, 1, size=SHARED + 700)
    ones = np.ones(len(values))
    weights = resamples(len(values), seed=1)
    got = mean_interval(values, ones, weights)
    assert got == mean_interval(values, ones, resamples(len(values), seed=2)), "the seed of a cell decides no more"
    oracle = stats.bootstrap(
        (values,), np.mean, n_resamples=9999, method="percentile", rng=np.random.default_rng(2), batch=500
    ).confidence_interval
    width = oracle.high - oracle.low
    assert got.value == pytest.approx(values.mean())
    assert got.lo == pytest.approx(oracle.low, abs=0.05 * width) and got.hi == pytest.approx(
        oracle.high, abs=0.05 * width
    )
    prepare(weights, [values, ones])  # several at once or one by one
    assert mean_interval(values, ones, weights).lo == pytest.approx(got.lo, rel=1e-12)


def test_more_images_than_groups_keep_the_width_of_the_closed_form() -> None:
    rng = np.random.default_rng(9)
    values = rng.normal(0.5, 0.2, size=3 * GROUPS + 17)
    got = mean_interval(values, np.ones(len(values)), resamples(len(values), seed=1))
    assert got.lo is not None and got.hi is not None
    assert got.hi - got.lo == pytest.approx(2 * 1.96 * values.std() / np.sqrt(len(values)), rel=0.06)


def test_unpaired_draws_of_many_images_are_not_the_same() -> None:
    """Two samples of one size differ by more than a paired sample would, which has no width here."""
    values, ones = np.random.default_rng(10).normal(size=SHARED + 1), np.ones(SHARED + 1)
    paired = difference_interval((values, ones), (values, ones), resamples(SHARED + 1, seed=3))
    apart = gap_interval((values, ones), (values, ones), seed=3)
    assert paired.lo == paired.hi == 0 and apart.lo is not None and apart.lo < -0.05
