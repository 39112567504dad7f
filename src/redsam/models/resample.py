"""Image resizing the way the official processors do it: in floating point with gradients, and bit for bit in 8 bits.

Source of the 8-bit path: Pillow's `Resample.c` (bilinear = triangle filter whose support grows when shrinking; two
passes; coefficients rounded to 22 fractional bits, each pass rounded and clipped to 8 bits), which
`SamImageProcessorPil` calls. The order of the passes is Pillow 13's; earlier ones always start horizontally, which
changes single pixels by one level in images more than twice as tall as wide.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

# Pillow, Resample.c: PRECISION_BITS = 32 - 8 - 2.
PRECISION_BITS = 22


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Float ...xHxW to ...xhxw, antialiased bilinear, differentiable; equals Pillow's triangle filter up to rounding.

    Half precision is resized in float32 (the kernels lack it) and returned in float32.
    """
    if tuple(images.shape[-2:]) == size:
        return images
    work = images if images.dtype == torch.float64 else images.float()
    return F.interpolate(work, size=size, mode="bilinear", align_corners=False, antialias=True)


def resize_like_pillow(images: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 ...xHxW to uint8 ...xhxw, equal to `PIL.Image.resize((w, h), BILINEAR)` bit for bit. No gradient."""
    out = images
    for axis in (-2, -1) if vertical_first((int(out.shape[-2]), int(out.shape[-1])), size) else (-1, -2):
        if out.shape[axis] != size[axis]:  # Pillow skips a pass that would not change the size
            out = _pass(out.transpose(axis, -1), size[axis]).transpose(axis, -1)
    return out


def vertical_first(old: tuple[int, int], new: tuple[int, int]) -> bool:
    """Whether Pillow 13 resizes (height, width) `old` to `new` vertically first: the height loses more than twice the
    rows that the width loses columns (Pillow pull request 9549; the condition found by comparing both orders)."""
    return new[0] < old[0] and old[0] - new[0] > 2 * (old[1] - new[1])


def resize_like_torchvision(images: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 Bx3xHxW to uint8 Bx3xhxw as torchvision resizes a uint8 tensor on the CPU, which is what the processors of
    SAM 2, SAM 3 and EdgeTAM call: torch's own 8-bit antialiased bilinear kernel. No gradient."""
    if tuple(images.shape[-2:]) == size:
        return images
    out = F.interpolate(images.cpu(), size=size, mode="bilinear", align_corners=False, antialias=True)
    return out.to(images.device)


def _pass(images: Tensor, out_size: int) -> Tensor:
    """One 8-bit pass along the last axis. int32 holds every sum: 255 * 2^22 plus rounding is below 2^31."""
    index, weight = _taps(images.shape[-1], out_size)
    index, weight = index.to(images.device), weight.to(images.device)
    total = torch.full((*images.shape[:-1], out_size), 1 << (PRECISION_BITS - 1), dtype=torch.int32).to(images.device)
    for tap in range(index.shape[0]):
        total += images.index_select(-1, index[tap]).to(torch.int32) * weight[tap]
    return (total >> PRECISION_BITS).clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=64)
def _taps(in_size: int, out_size: int) -> tuple[Tensor, Tensor]:
    """For every output position the source positions and fixed-point weights: two K x out_size tensors."""
    scale = in_size / out_size
    stretch = max(scale, 1.0)
    count = math.ceil(stretch) * 2 + 1
    index = torch.zeros(count, out_size, dtype=torch.int64)
    weight = torch.zeros(count, out_size, dtype=torch.int32)
    for position in range(out_size):
        centre = (position + 0.5) * scale
        first = max(int(centre - stretch + 0.5), 0)
        last = min(int(centre + stretch + 0.5), in_size)
        taps = [max(1.0 - abs((x - centre + 0.5) / stretch), 0.0) for x in range(first, last)]
        total = sum(taps)
        for k, value in enumerate(taps):
            index[k, position] = first + k
            weight[k, position] = int(0.5 + value / total * (1 << PRECISION_BITS))
    return index, weight
