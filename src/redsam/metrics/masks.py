"""Overlap of masks: IoU, boundary IoU and the attack success rate.

Masks are bool ...xHxW tensors of one shape, in original-image pixels; any leading dimensions are a batch. Results are
float64 in [0, 1]. Two empty masks agree (1), an empty one against a non-empty one does not (0): torchmetrics drops such
pairs, which would hide "segment nothing", the very outcome of a vanish attack.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from redsam.registry import register

BOUNDARY_RATIO = 0.02  # share of the image diagonal, Cheng et al. 2021, Boundary IoU, section 4 ("d = 2 %")
CHUNK = 2**24  # pixels whose boundary is found in one go


@register("metric", "iou", higher_is_better=True, range=(0.0, 1.0))
def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of bool ...xHxW with ...xHxW, to float64 of the leading shape; both empty is 1."""
    _check(a, b)
    inter, union = _count(a & b), _count(a | b)
    return torch.where(union > 0, inter / union.clamp(min=1), torch.ones_like(union))


def area(mask: Tensor) -> Tensor:
    """Share of the image that is set, of bool ...xHxW: float64 of the leading shape."""
    return _count(mask) / mask.flatten(-2).shape[-1]


def _count(mask: Tensor) -> Tensor:
    """Set pixels, float64 of the leading shape."""
    flat = mask.flatten(-2)
    if flat.device.type == "cpu":  # NumPy counts bytes five times as fast as PyTorch does on a CPU
        return torch.as_tensor(np.count_nonzero(flat.numpy(), axis=-1), dtype=torch.float64)
    return flat.count_nonzero(-1).to(torch.float64)


def boundary_width(height: int, width: int, ratio: float = BOUNDARY_RATIO) -> int:
    """Thickness of the boundary band in pixels, at least 1 (rounded as the authors' code does)."""
    return max(1, round(ratio * math.hypot(height, width)))


def boundary(mask: Tensor, *, width: int) -> Tensor:
    """The pixels of bool ...xHxW closer than `width` to the mask's inner contour, as bool of the same shape.

    The mask minus its erosion by a 3x3 square, `width` times. Outside the image counts as background, so an object cut
    by the border has a boundary there. `width` erosions by 3x3 are one by a (2 width + 1) square, which is two passes
    of a sliding count: exact and independent of `width` in cost. Cheng et al. 2021 (CVPR), Boundary IoU, eq. 1.
    """
    if width < 1:
        raise ValueError(f"a boundary is at least 1 pixel wide, not {width}")
    if mask.ndim > 2 and mask.numel() > CHUNK:  # each pass makes a copy
        return torch.stack([boundary(m, width=width) for m in mask])
    return mask & ~_full_runs(_full_runs(mask, width, -1), width, -2)


def _full_runs(mask: Tensor, radius: int, dim: int) -> Tensor:
    """True where all pixels within `radius` along `dim` are set; outside the image nothing is.

    Runs of 1, 2, 4, ... set pixels by doubling, then two overlapping runs make one of the window's length: a handful of
    passes over bytes, whatever the radius.
    """
    out, size, window = torch.zeros_like(mask), mask.shape[dim], 2 * radius + 1
    if size < window:
        return out
    runs, length = mask, 1
    while 2 * length <= window:
        count = runs.shape[dim] - length
        runs, length = runs.narrow(dim, 0, count) & runs.narrow(dim, length, count), 2 * length
    places = size - window + 1
    whole = runs.narrow(dim, 0, places) & runs.narrow(dim, window - length, places)
    out.narrow(dim, radius, places).copy_(whole)
    return out


@register("metric", "boundary-iou", higher_is_better=True, range=(0.0, 1.0), paper="2103.16562", year=2021)
def boundary_iou(a: Tensor, b: Tensor, *, ratio: float = BOUNDARY_RATIO) -> Tensor:
    """IoU of the two masks' boundary bands (2 % of the image diagonal wide), shapes and empties as `iou`.

    Sensitive to contours where plain IoU is dominated by an object's inside. Cheng et al. 2021, Boundary IoU, eq. 1.
    """
    _check(a, b)
    width = boundary_width(a.shape[-2], a.shape[-1], ratio)
    return iou(boundary(a, width=width), boundary(b, width=width))


@register("metric", "asr", higher_is_better=False, range=(0.0, 1.0))
def asr(ious: Tensor, *, percent: float = 50.0) -> Tensor:
    """Attack success rate: the share of the last dimension's IoUs that are at most `percent` percent, float64.

    No filter on the clean prediction, as UAD and RGA count it (IoU <= 50, IoU <= 10). Other papers mean other things by
    ASR; print the threshold and the reference beside the number. "Higher is better" is the defender's view: lower is.
    """
    if ious.shape[-1] == 0:
        raise ValueError("the success rate of no prompts is undefined")
    return (ious.to(torch.float64) * 100 <= percent).to(torch.float64).mean(-1)


def _check(a: Tensor, b: Tensor) -> None:
    if a.dtype != torch.bool or b.dtype != torch.bool or a.shape != b.shape or a.ndim < 2:
        raise ValueError(
            f"expected two bool ...xHxW masks of one shape, got {a.dtype} {tuple(a.shape)}, {b.dtype} {tuple(b.shape)}"
        )
