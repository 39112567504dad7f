"""Haar DWT: one level of the two-dimensional Haar wavelet transform and its inverse, orthonormal and differentiable."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Bands(NamedTuple):
    """Four ...xhxw bands of ...x2hx2w: average (ll), difference of columns (lh), of rows (hl), of both (hh)."""

    ll: Tensor
    lh: Tensor
    hl: Tensor
    hh: Tensor


def haar(images: Tensor) -> Bands:
    """...xHxW to its bands, each (H + 1)//2 x (W + 1)//2. An odd side is continued by its last row or column first.

    For the block (a b / c d): ll (a+b+c+d)/2, lh (a-b+c-d)/2, hl (a+b-c-d)/2, hh (a-b-c+d)/2. On even sides the sums of
    squares of the bands add up to that of the images.
    """
    bottom, right = images.shape[-2] % 2, images.shape[-1] % 2
    if bottom or right:
        flat = images.reshape(1, -1, *images.shape[-2:])
        flat = F.pad(flat, (0, right, 0, bottom), mode="replicate")
        images = flat.reshape(*images.shape[:-2], *flat.shape[-2:])
    a, b = images[..., ::2, ::2], images[..., ::2, 1::2]
    c, d = images[..., 1::2, ::2], images[..., 1::2, 1::2]
    return Bands((a + b + c + d) / 2, (a - b + c - d) / 2, (a + b - c - d) / 2, (a - b - c + d) / 2)


def inverse(bands: Bands, size: tuple[int, int]) -> Tensor:
    """The ...xHxW images of (height, width) `size` that `haar` took apart."""
    ll, lh, hl, hh = bands
    rows = []
    for sign in (1, -1):
        left, right = ll + sign * hl + lh + sign * hh, ll + sign * hl - lh - sign * hh
        rows.append(torch.stack([left, right], dim=-1).flatten(-2) / 2)
    whole = torch.stack(rows, dim=-2).flatten(-3, -2)
    return whole[..., : size[0], : size[1]]
