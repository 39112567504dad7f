"""Pixelate and JPEG: what storing an image does to it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from redsam.corruptions.base import Corruption
from redsam.corruptions.hendrycks import PUBLISHED
from redsam.registry import register
from redsam.types import from_uint8, to_uint8

KEPT = (0.6, 0.5, 0.4, 0.3, 0.25)  # of each side
QUALITY = (25, 18, 15, 10, 7)


@register("corruption", "pixelate", group="digital", geometric=False, **PUBLISHED)
@dataclass(frozen=True, kw_only=True)
class Pixelate(Corruption):
    """Shrunk to a fraction of each side by averaging boxes, and enlarged again in blocks.

    Deviation: the average is not rounded to 8 bits between columns and rows as Pillow does (one level at most), and
    Pillow's rounding of positions does not decide where a pixel counts whose centre lies on the edge of two boxes.
    """

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        blocks = images.double() * 255
        for axis in (-2, -1):
            blocks = _blocks(blocks, max(int(images.shape[axis] * KEPT[self.severity - 1]), 1), axis)
        return (blocks / 255).float()


def _blocks(images: Tensor, count: int, axis: int) -> Tensor:
    """Every pixel the mean of those in its block, of `count` blocks. A centre on the edge of two counts for the first
    and shows the second, as with Pillow. On levels of 8 bits the sums are whole numbers and exact."""
    size = images.shape[axis]
    centres = (2 * torch.arange(size) + 1) * count
    block, shown = ((centres - 1) // (2 * size)).to(images.device), (centres // (2 * size)).to(images.device)
    shape = [1] * images.ndim
    shape[axis] = count
    totals = images.new_zeros([*images.shape[:axis], count, *images.shape[axis:][1:]])
    means = totals.index_add(axis, block, images) / block.bincount().view(shape)
    return means.index_select(axis, shown)


@register("corruption", "jpeg", group="digital", geometric=False, **PUBLISHED)
@dataclass(frozen=True, kw_only=True)
class Jpeg(Corruption):
    """Saved as JPEG of low quality and opened again, by Pillow (4:2:0 chroma, as published).

    Deviation: none.
    """

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        quality = QUALITY[self.severity - 1]
        return torch.stack([compressed(image, quality) for image in to_uint8(images).cpu()]).to(images.device)


def compressed(image: Tensor, quality: int) -> Tensor:
    """uint8 3xHxW to float32 3xHxW as it comes out of a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(file, format="JPEG", quality=quality)
    with Image.open(file) as opened:
        pixels = np.array(opened.convert("RGB"))
    return from_uint8(torch.from_numpy(pixels).permute(2, 0, 1))
