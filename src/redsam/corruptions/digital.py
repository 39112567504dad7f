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

    Deviation: the average is not rounded to 8 bits between columns and rows as Pillow does (one level at most).
    """

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        blocks = images.double() * 255
        for axis in (-2, -1):
            blocks = _blocks(blocks, max(int(images.shape[axis] * KEPT[self.severity - 1]), 1), axis)
        return (blocks / 255).float()


def _blocks(images: Tensor, count: int, axis: int) -> Tensor:
    """Means of `count` runs of pixels, each repeated over what it stands for, with Pillow's choice of pixels.

    On levels of 8 bits the sums are whole numbers and exact.
    """
    size = images.shape[axis]
    edge = (torch.arange(count + 1, dtype=torch.float64) * (size / count) + 0.5).long().clamp(max=size)
    edge = edge.to(images.device)
    zero = torch.zeros_like(images.narrow(axis, 0, 1))
    total = torch.cat([zero, images.cumsum(axis)], axis)
    shape = [1] * images.ndim
    shape[axis] = count
    length = (edge[1:] - edge[:-1]).view(shape)
    means = (total.index_select(axis, edge[1:]) - total.index_select(axis, edge[:-1])) / length
    stands = ((torch.arange(size, dtype=torch.float64) + 0.5) * (count / size)).long()
    return means.index_select(axis, stands.to(images.device))


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
