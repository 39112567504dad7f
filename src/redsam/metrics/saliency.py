"""How a map of a foreground agrees with a mask when no prompt names the object: S-measure, mean E-measure, weighted F,
MAE, as papers on salient and camouflaged objects print them.

Maps are float ...xHxW in [0, 1] (the sigmoid of mask logits), masks bool of the same shape; any leading dimensions are
a batch. Results are float64 of the leading shape, 1 is best (MAE: 0).
Deviation: the published tools first stretch every map to the full range 0 to 1. Here maps stay as they are, because the
stretch makes a full mask out of the noise of a map that is empty, which is what some attackers want.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from redsam.registry import register

ALPHA = 0.5  # Fan et al. 2017, eq. 1: both halves weigh the same
LEVELS = 256  # Fan et al. 2018, section 4: an 8-bit map has so many thresholds
WINDOW, SIGMA = 7, 5.0  # Margolin et al. 2014, section 4, and the authors' code
HALF_DISTANCE = 5.0  # ibid., eq. 8: far errors weigh up to 2, alpha = ln(0.5) / 5
EPS = float(np.finfo(np.float64).eps)

Map = NDArray[np.float64]
Mask = NDArray[np.bool_]


@register("metric", "s-measure", higher_is_better=True, range=(0.0, 1.0), paper="Structure-measure (Fan et al.)",
          year=2017)  # fmt: skip
def s_measure(prediction: Tensor, truth: Tensor) -> Tensor:
    """Structure measure: half how alike foreground and background are, half the likeness of the four quarters around
    the mask's centre (Fan et al., ICCV 2017). An empty mask: 1 - mean map; a full one: the mean map."""
    return _each(prediction, truth, _structure)


@register("metric", "e-measure", higher_is_better=True, range=(0.0, 1.0), paper="Enhanced-alignment measure (Fan et "
          "al.)", year=2018)  # fmt: skip
def e_measure(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean enhanced-alignment measure over the 256 thresholds of an 8-bit map (Fan et al., IJCAI 2018, eq. 4-5).
    An empty or a full mask: share of the pixels that agree, as the authors' code has it."""
    return _each(prediction, truth, _alignment)


@register("metric", "weighted-f", higher_is_better=True, range=(0.0, 1.0), paper="How to evaluate foreground maps "
          "(Margolin et al.)", year=2014)  # fmt: skip
def weighted_f(prediction: Tensor, truth: Tensor) -> Tensor:
    """Weighted F-measure with beta 1 (Margolin et al., CVPR 2014): errors near other errors and near the mask weigh
    less. Deviation: for an empty mask, where the formula is undefined, 1 when the map is below 0.5 everywhere, else
    0 (two empty masks agree, as everywhere here)."""
    return _each(prediction, truth, _weighted)


@register("metric", "mae", higher_is_better=False, range=(0.0, 1.0))
def mae(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute difference between map and mask."""
    return _each(prediction, truth, lambda p, g: float(np.abs(p - g).mean()))


def _each(prediction: Tensor, truth: Tensor, score: Callable[[Map, Mask], float]) -> Tensor:
    if prediction.shape != truth.shape or prediction.ndim < 2 or truth.dtype != torch.bool:
        raise ValueError(
            f"expected a float map and a bool mask of one shape ...xHxW, got {prediction.dtype} "
            f"{tuple(prediction.shape)}, {truth.dtype} {tuple(truth.shape)}"
        )
    maps = prediction.detach().cpu().double().reshape(-1, *prediction.shape[-2:]).numpy()
    masks = truth.detach().cpu().reshape(-1, *truth.shape[-2:]).numpy()
    if maps.size and not (maps.min() >= 0 and maps.max() <= 1):  # also catches NaN
        raise ValueError(f"a map spans [0, 1], this one {maps.min():g} to {maps.max():g}")
    found = [score(p, g) for p, g in zip(maps, masks, strict=True)]
    return torch.tensor(found, dtype=torch.float64).reshape(prediction.shape[:-2])


# --- S-measure -----------------------------------------------------------------------------------------------------
def _structure(p: Map, g: Mask) -> float:
    share = float(g.mean())
    if share == 0:
        return float(1 - p.mean())
    if share == 1:
        return float(p.mean())
    objects = share * _likeness(p[g]) + (1 - share) * _likeness(1 - p[~g])
    return max(0.0, ALPHA * objects + (1 - ALPHA) * _regions(p, g))


def _likeness(values: Map) -> float:
    """Fan et al. 2017, eq. 4-5: high and even values."""
    mean = float(values.mean())
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return 2 * mean / (mean**2 + 1 + spread + EPS)


def _regions(p: Map, g: Mask) -> float:
    """Ibid., eq. 2: SSIM of the quarters around the mask's centre, weighed by their areas."""
    y, x = (int(v) + 1 for v in np.argwhere(g).mean(axis=0).round())
    total = 0.0
    for rows in (slice(0, y), slice(y, None)):
        for columns in (slice(0, x), slice(x, None)):
            part = p[rows, columns]
            if part.size:
                total += part.size / p.size * _ssim(part, g[rows, columns].astype(np.float64))
    return total


def _ssim(p: Map, g: Map) -> float:
    x, y, below = float(p.mean()), float(g.mean()), max(p.size - 1, 1)
    var_x, var_y = float(((p - x) ** 2).sum() / below), float(((g - y) ** 2).sum() / below)
    both = float(((p - x) * (g - y)).sum() / below)
    above, under = 4 * x * y * both, (x**2 + y**2) * (var_x + var_y)
    if above != 0:
        return above / (under + EPS)
    return 1.0 if under == 0 else 0.0


# --- E-measure -----------------------------------------------------------------------------------------------------
def _alignment(p: Map, g: Mask) -> float:
    """Alignment takes four values at a threshold, one for each pair of set and unset: counts make the curve."""
    levels = (p * (LEVELS - 1)).astype(np.uint8)

    def at_least(values: NDArray[np.uint8]) -> Map:
        """How many are at or above each of the thresholds 0 to 255."""
        return np.bincount(values, minlength=LEVELS)[::-1].cumsum()[::-1].astype(np.float64)

    inside, outside = at_least(levels[g]), at_least(levels[~g])
    size, set_g = float(p.size), float(g.sum())
    set_p = inside + outside
    if set_g == 0:
        whole = size - set_p
    elif set_g == size:
        whole = set_p
    else:
        mean_p, mean_g = set_p / size, set_g / size
        whole = np.zeros(LEVELS)
        for count, p_set, g_set in (
            (inside, 1, 1),
            (outside, 1, 0),
            (set_g - inside, 0, 1),
            (size - set_g - outside, 0, 0),
        ):
            a, b = p_set - mean_p, g_set - mean_g
            whole += count * (2 * a * b / (a**2 + b**2 + EPS) + 1) ** 2 / 4
    return float((whole / (size - 1 + EPS)).mean())


# --- weighted F ----------------------------------------------------------------------------------------------------
def _weighted(p: Map, g: Mask) -> float:
    if not g.any():
        return float(bool((p < 0.5).all()))
    distance, nearest = ndimage.distance_transform_edt(~g, return_indices=True)
    error = np.abs(p - g)
    spread = error.copy()
    spread[~g] = error[nearest[0][~g], nearest[1][~g]]
    near = ndimage.convolve(spread, _gaussian(), mode="constant", cval=0)
    dependent = np.where(g & (near < error), near, error)
    weight = np.where(g, 1.0, 2 - np.exp(np.log(0.5) / HALF_DISTANCE * distance))
    cost = dependent * weight
    hits, recall = float(g.sum() - cost[g].sum()), float(1 - cost[g].mean())
    precision = hits / (hits + float(cost[~g].sum()) + EPS)
    return 2 * recall * precision / (recall + precision + EPS)


def _gaussian() -> Map:
    """7x7 with sigma 5, sum 1."""
    at = np.arange(WINDOW) - WINDOW // 2
    one = np.exp(-(at**2) / (2 * SIGMA**2))
    both = np.outer(one, one)
    return np.asarray(both / both.sum(), dtype=np.float64)
