"""Segmentation-And-Dilation: the masks of an image to RGA's region-guided map, a coloured picture (Liu et al., 2024).

Small masks are dilated and filled with one random colour each; large masks are joined and cut into cells of a grid, a
colour each; the rest stays black. Where masks overlap, what is painted first stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from redsam.errors import InputError
from redsam.models.automatic import MaskSet

Overlap = Literal["first", "small-first", "confident-first"]

# As published: cells of a tenth of the image's shorter side; a mask of at most one cell's area is small.
GRID_RATE = 0.1
# As published: 50 dilations by a 5x5 square, 2 pixels to each side every time.
DILATIONS = 50
REACH = 2
# The long side of the images that the published number of dilations is meant for.
PUBLISHED_SIDE = 1024


def painting_order(found: MaskSet, overlap: Overlap) -> list[int]:
    """Indices of the masks in the order in which they are painted; ties keep the generator's order.

    first: the generator's order, as published, which is by falling predicted IoU. small-first: by rising area, so that
    a part is not hidden under its whole. confident-first: by falling stability score, the generator's other measure.
    """
    if overlap not in get_args(Overlap):
        raise InputError(f"There is no overlap rule '{overlap}'.", hint=f"Choose from {', '.join(get_args(Overlap))}.")
    if overlap == "first":
        return list(range(len(found)))
    key = found.masks.sum((1, 2)) if overlap == "small-first" else -found.stability
    return [int(i) for i in torch.argsort(key, stable=True)]


def paint(
    masks: Tensor,
    random: torch.Generator,
    *,
    order: Sequence[int] | None = None,
    grid_rate: float = GRID_RATE,
    dilations: int = DILATIONS,
) -> Tensor:
    """bool KxHxW masks to the map, float32 3xHxW on the 8-bit lattice, on the masks' device.

    order: in which the small masks are painted (default as they come); all come before the large ones. Colours are
    drawn from `random` (a CPU generator): one for each small mask in that order, then one for every cell of the grid,
    row by row. dilations: of 5x5 at a long side of 1024 pixels, fewer in proportion on a smaller image. Without any
    mask the whole image counts as one large mask, so that the map still is a picture.

    Deviation: channels are drawn from 1 to 255. Where the published code draws a 0, a later mask paints into that
    channel, because it takes 0 for "not painted yet".
    """
    if masks.ndim != 3 or masks.dtype != torch.bool:
        raise InputError(f"A map is painted from bool masks KxHxW, got {masks.dtype} {tuple(masks.shape)}.")
    height, width = masks.shape[1:]
    areas = masks.sum((1, 2)).tolist()
    if not any(areas):
        masks, areas, order = masks.new_ones((1, height, width)), [height * width], None
    cell = max(int(grid_rate * min(height, width)), 1)
    radius = round(REACH * dilations * max(height, width) / PUBLISHED_SIDE)
    out = torch.zeros(3, height, width, dtype=torch.uint8, device=masks.device)
    free = torch.ones(height, width, dtype=torch.bool, device=masks.device)
    for i in range(len(masks)) if order is None else order:
        if 0 < areas[i] <= cell**2:
            where = dilate(masks[i], radius) & free
            out = torch.where(where, _colours(1, random).to(out.device)[0, :, None, None], out)
            free &= ~where
    joined = masks[[i for i, area in enumerate(areas) if area > cell**2]].any(0) & free
    columns = -(-width // cell)
    row = torch.arange(height, device=masks.device) // cell
    column = torch.arange(width, device=masks.device) // cell
    colours = _colours(-(-height // cell) * columns, random).to(masks.device)
    cells = colours[row[:, None] * columns + column[None]].permute(2, 0, 1)
    return torch.where(joined, cells, out).to(torch.float32) / 255


def dilate(mask: Tensor, radius: int) -> Tensor:
    """bool ...xHxW: every pixel within `radius` rows and columns of one that is set, which is `radius` dilations by
    3x3 or half as many by 5x5; its cost does not depend on the radius."""
    return _spread(_spread(mask, radius, -1), radius, -2)


def _spread(mask: Tensor, radius: int, dim: int) -> Tensor:
    """True where any pixel within `radius` along `dim` is set, by running counts."""
    size = mask.shape[dim]
    at = torch.arange(size, device=mask.device)
    none = torch.zeros_like(mask.narrow(dim, 0, 1), dtype=torch.int32)
    count = torch.cat([none, mask.cumsum(dim, dtype=torch.int32)], dim)
    upto = count.index_select(dim, (at + radius + 1).clamp(max=size))
    return upto > count.index_select(dim, (at - radius).clamp(min=0))


def _colours(count: int, random: torch.Generator) -> Tensor:
    """count x 3 uint8, none of them with a zero."""
    return torch.randint(1, 256, (count, 3), generator=random).to(torch.uint8)
