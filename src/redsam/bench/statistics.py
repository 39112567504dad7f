"""Means over prompts with intervals over images.

Prompts of one image share its adversarial image and are not independent, so the bootstrap draws whole images:
percentile intervals over clusters, prompts nested (Field & Welsh 2007, "Bootstrapping clustered data", the cluster
bootstrap). All numbers of one row are computed on the same resamples, so clean minus adversarial is paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
LEVEL = 0.95

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over prompts and its percentile interval; lo and hi are None with fewer than two images."""

    value: float
    lo: float | None
    hi: float | None


def resamples(images: int, *, seed: int, count: int = RESAMPLES) -> Array:
    """How often each image is drawn, count x images: n draws with replacement out of n."""
    if images < 1:
        raise ValueError("nothing to resample")
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), size=count).astype(np.float64)


def image_sums(values: Sequence[float] | NDArray[Any], owner: Sequence[int] | NDArray[np.int64], images: int) -> Array:
    """Sum of the prompts' values per image: float64 of length `images`. owner: the image index of each value."""
    weights = np.asarray(values, dtype=np.float64)
    return np.bincount(np.asarray(owner), weights=weights, minlength=images).astype(np.float64)


def mean_interval(sums: Array, counts: Array, weights: Array, *, level: float = LEVEL) -> Interval:
    """Pooled mean of all prompts, sum(sums) / sum(counts), with the percentile interval over the drawn images.

    sums, counts: per image. weights: from `resamples`. A draw without any prompt (all its images had none) is left out.
    """
    totals = counts.sum()
    if totals <= 0:
        raise ValueError("a mean of no prompts is undefined")
    value = float(sums.sum() / totals)
    return Interval(value=value, **_ends(*_drawn(weights, sums, counts), level, images=int((counts > 0).sum())))


def difference_interval(
    first: tuple[Array, Array], second: tuple[Array, Array], weights: Array, *, level: float = LEVEL
) -> Interval:
    """Pooled mean of `first` minus that of `second`, (sums, counts) over the same images, drawn together (paired)."""
    (sums_a, counts_a), (sums_b, counts_b) = first, second
    if counts_a.sum() <= 0 or counts_b.sum() <= 0:
        raise ValueError("a mean of no prompts is undefined")
    value = float(sums_a.sum() / counts_a.sum() - sums_b.sum() / counts_b.sum())
    a, b = _drawn(weights, sums_a, counts_a), _drawn(weights, sums_b, counts_b)
    keep = a[1] & b[1]
    return Interval(value=value, **_ends(a[0] - b[0], keep, level, images=int(((counts_a > 0) & (counts_b > 0)).sum())))


def gap_interval(
    first: tuple[Array, Array], second: tuple[Array, Array], *, seed: int, level: float = LEVEL
) -> Interval:
    """Pooled mean of `first` minus that of `second`, (sums, counts) over other images each, drawn apart (unpaired)."""
    (sums_a, counts_a), (sums_b, counts_b) = first, second
    if counts_a.sum() <= 0 or counts_b.sum() <= 0:
        raise ValueError("a mean of no prompts is undefined")
    value = float(sums_a.sum() / counts_a.sum() - sums_b.sum() / counts_b.sum())
    # Two streams: with one seed, sides of the same size would draw the same places and be paired after all.
    a = _drawn(resamples(len(sums_a), seed=seed), sums_a, counts_a)
    b = _drawn(resamples(len(sums_b), seed=seed ^ 1), sums_b, counts_b)
    fewer = min(int((counts_a > 0).sum()), int((counts_b > 0).sum()))
    return Interval(value=value, **_ends(a[0] - b[0], a[1] & b[1], level, images=fewer))


def _drawn(weights: Array, sums: Array, counts: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Mean of every resample, and which resamples have one."""
    below = weights @ counts
    return (weights @ sums) / np.where(below > 0, below, 1), below > 0


def _ends(means: Array, keep: NDArray[np.bool_], level: float, *, images: int) -> dict[str, float | None]:
    if images < 2:
        return {"lo": None, "hi": None}
    lo, hi = np.quantile(means[keep], [(1 - level) / 2, (1 + level) / 2])
    return {"lo": float(lo), "hi": float(hi)}
