"""Means over prompts with intervals over images.

Prompts of one image share its adversarial image and are not independent, so the bootstrap draws whole images:
percentile intervals over clusters, prompts nested (Field & Welsh 2007, "Bootstrapping clustered data", the cluster
bootstrap). All numbers of one row are computed on the same resamples, so clean minus adversarial is paired.
What stands for an image is its sums and counts alone, so a cell of any size takes a few numbers an image; see `Draws`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
LEVEL = 0.95

# Up to so many images every cell draws its own resamples; above, all cells of one size share them, drawn once and kept
# as bytes: each interval is as valid, and a million records take seconds instead of minutes.
SHARED = 500
# More images than this are dealt to so many groups, and groups are drawn: the same interval, in bounded memory.
GROUPS = 20_000
_BLOCK = 1 << 16  # weights turned to float64 at a time: as many as the cache of a core holds

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over prompts and its percentile interval; lo and hi are None with fewer than two images."""

    value: float
    lo: float | None
    hi: float | None


class Draws:
    """Resamples of many images: count x units weights as bytes, a unit being an image or, above GROUPS, a group.

    `dot` gives each resample's weighted sum of a value per image; `prepare` computes many at once, which is much
    cheaper than one by one.
    """

    def __init__(self, images: int, *, seed: int, count: int = RESAMPLES) -> None:
        self._unit: NDArray[np.int64] | None = None
        units = images
        if images > GROUPS:
            units = GROUPS
            self._unit = np.random.default_rng(seed).permutation(images) % units
        self._weights = _shared(units, seed, count)
        self._known: dict[bytes, Array] = {}

    def prepare(self, columns: Sequence[Array]) -> None:
        """Compute `dot` of all these."""
        fresh = {c.tobytes(): c for c in columns}
        self._known = {key: v for key, v in self._known.items() if key in fresh}
        fresh = {key: c for key, c in fresh.items() if key not in self._known}
        if not fresh:
            return
        matrix = np.stack([self._grouped(c) for c in fresh.values()], axis=1)
        count, units = self._weights.shape
        rows = max(1, _BLOCK // units)
        blocks = [self._weights[i : i + rows].astype(np.float64) @ matrix for i in range(0, count, rows)]
        self._known |= dict(zip(fresh, np.concatenate(blocks).T.copy(), strict=True))

    def dot(self, column: Array) -> Array:
        """Weighted sum of one value per image, for each resample."""
        key = column.tobytes()
        if key not in self._known:
            self.prepare([column])
        return self._known[key]

    def _grouped(self, column: Array) -> Array:
        if self._unit is None:
            return column
        return np.bincount(self._unit, weights=column, minlength=GROUPS).astype(np.float64)


@functools.lru_cache(maxsize=4)
def _shared(units: int, seed: int, count: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng([seed, units])
    out = np.empty((count, units), dtype=np.uint8)
    for row in out:
        drawn = np.bincount(rng.integers(0, units, size=units, dtype=np.uint32), minlength=units)
        row[:] = np.minimum(drawn, 255)  # 255 draws of one out of more than 500 do not happen
    return out


def resamples(images: int, *, seed: int, count: int = RESAMPLES) -> Array | Draws:
    """How often each image is drawn: n draws with replacement out of n, count times. Up to SHARED images the weights
    themselves, count x images, drawn with `seed`; above, `Draws` that do not depend on it."""
    if images < 1:
        raise ValueError("nothing to resample")
    if images > SHARED:
        return Draws(images, seed=0, count=count)
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), size=count).astype(np.float64)


def prepare(weights: Array | Draws | None, columns: Sequence[Array]) -> None:
    """Tell what will be drawn with these weights; saves time where there are many images, changes nothing."""
    if isinstance(weights, Draws):
        weights.prepare(columns)


def image_sums(values: Sequence[float] | NDArray[Any], owner: Sequence[int] | NDArray[np.int64], images: int) -> Array:
    """Sum of the prompts' values per image: float64 of length `images`. owner: the image index of each value."""
    weights = np.asarray(values, dtype=np.float64)
    return np.bincount(np.asarray(owner), weights=weights, minlength=images).astype(np.float64)


def mean_interval(sums: Array, counts: Array, weights: Array | Draws, *, level: float = LEVEL) -> Interval:
    """Pooled mean of all prompts, sum(sums) / sum(counts), with the percentile interval over the drawn images.

    sums, counts: per image. weights: from `resamples`. A draw without any prompt (all its images had none) is left out.
    """
    totals = counts.sum()
    if totals <= 0:
        raise ValueError("a mean of no prompts is undefined")
    value = float(sums.sum() / totals)
    return Interval(value=value, **_ends(*_drawn(weights, sums, counts), level, images=int((counts > 0).sum())))


def difference_interval(
    first: tuple[Array, Array], second: tuple[Array, Array], weights: Array | Draws, *, level: float = LEVEL
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
    a = _drawn(_apart(len(sums_a), seed=seed), sums_a, counts_a)
    b = _drawn(_apart(len(sums_b), seed=seed ^ 1), sums_b, counts_b)
    fewer = min(int((counts_a > 0).sum()), int((counts_b > 0).sum()))
    return Interval(value=value, **_ends(a[0] - b[0], a[1] & b[1], level, images=fewer))


def _apart(images: int, *, seed: int) -> Array | Draws:
    """Resamples that no other sample of this size shares."""
    return Draws(images, seed=1 + seed % 2) if images > SHARED else resamples(images, seed=seed)


def _drawn(weights: Array | Draws, sums: Array, counts: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Mean of every resample, and which resamples have one."""
    if isinstance(weights, Draws):
        below, above = weights.dot(counts), weights.dot(sums)
    else:
        below, above = weights @ counts, weights @ sums
    return above / np.where(below > 0, below, 1), below > 0


def _ends(means: Array, keep: NDArray[np.bool_], level: float, *, images: int) -> dict[str, float | None]:
    if images < 2:
        return {"lo": None, "hi": None}
    lo, hi = np.quantile(means[keep], [(1 - level) / 2, (1 + level) / 2])
    return {"lo": float(lo), "hi": float(hi)}
