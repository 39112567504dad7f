"""Masks and prompts moved with pixels: a grid says where each output pixel comes from, this says where things go.

grid: HxWx2, (x, y) in input pixels. A point is a pixel index, a box's edges lie between pixels (index i covers
[i, i + 1)), both as in `redsam.prompts`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from redsam.prompts import Box, Prompt

# A point is gone when no output pixel comes from within so many pixels of it, or within one step of the grid where that
# is longer (an image shown smaller).
NEAR = 1.0


def positions(height: int, width: int) -> Tensor:
    """HxWx2: (x, y) of every pixel, float32."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y], dim=-1).float()


def inside(grid: Tensor) -> Tensor:
    """...HxWx2 positions, those outside mirrored in at the centre of the border pixel ("reflect 101")."""
    last = grid.new_tensor([max(grid.shape[-2] - 1, 1), max(grid.shape[-3] - 1, 1)])
    turned = grid.remainder(2 * last)
    return torch.minimum(turned, 2 * last - turned)


def masks(masks: Tensor, grid: Tensor) -> Tensor:
    """Bool PxHxW to what shows after the move, nearest neighbour."""
    at = grid.round().long().to(masks.device)
    return masks[:, at[..., 1], at[..., 0]]


def prompt(given: Prompt, grid: Tensor) -> Prompt | None:
    """The prompt after the move. Points that left the image are dropped with their labels; None when nothing that says
    where the object is remains (a box, a mask, or an inner point if there was one). Text does not move."""
    moved = [(p, label) for q, label in zip(given.points, given.labels, strict=True) if (p := point(q, grid))]
    frame = box(given.box, grid) if given.box is not None else None
    prior = None
    if given.mask is not None:
        seen = masks(torch.from_numpy(np.ascontiguousarray(given.mask))[None], grid)[0].numpy()
        prior = seen if seen.any() or not given.mask.any() else None
    labels = tuple(label for _, label in moved)
    anchored = frame is not None or prior is not None or 1 in labels or (1 not in given.labels and bool(labels))
    spatial = bool(given.points) or given.box is not None or given.mask is not None
    if spatial and not anchored:
        return None
    return replace(given, points=tuple(p for p, _ in moved), labels=labels, box=frame, mask=prior)


def point(at: tuple[float, float], grid: Tensor) -> tuple[float, float] | None:
    """Where the pixel at (x, y) went, to a fraction of a pixel; None when it is no longer shown."""
    source, target = grid.double(), grid.new_tensor(at, dtype=torch.float64)
    height, width = source.shape[:2]
    nearest = int((source - target).square().sum(-1).argmin())
    row, column = divmod(nearest, width)
    down = source[min(row + 1, height - 1), column] - source[max(row - 1, 0), column]
    right = source[row, min(column + 1, width - 1)] - source[row, max(column - 1, 0)]
    jacobian = torch.stack([right / _span(column, width), down / _span(row, height)], dim=-1)  # d source / d (x, y)
    rest = target - source[row, column]
    if float(rest.norm()) > max(NEAR, float(jacobian.norm(dim=0).max())):
        return None
    # One step of Newton's; where the grid folds it may lead anywhere, and the nearest pixel is the answer.
    step = torch.linalg.solve(jacobian, rest) if float(jacobian.det().abs()) > 1e-3 else torch.zeros_like(rest)
    if float(step.abs().max()) > 1:
        step = torch.zeros_like(step)
    x, y = column + float(step[0]), row + float(step[1])
    return min(max(x, 0.0), math.nextafter(width, 0)), min(max(y, 0.0), math.nextafter(height, 0))


def box(given: Box, grid: Tensor) -> Box | None:
    """The box around all pixels that come from inside the given one; None when there is none."""
    x0, y0, x1, y1 = given
    x, y = grid[..., 0].double() + 0.5, grid[..., 1].double() + 0.5  # centres, in the frame of edges
    shown = (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
    if not shown.any():
        return None
    rows, columns = (v.double() + 0.5 for v in shown.nonzero(as_tuple=True))
    # A pixel reaches out by one pixel, or as far as the edge where that is nearer.
    left = float((columns - (x[shown] - x0).clamp(max=1)).min())
    right = float((columns + (x1 - x[shown]).clamp(max=1)).max())
    top = float((rows - (y[shown] - y0).clamp(max=1)).min())
    bottom = float((rows + (y1 - y[shown]).clamp(max=1)).max())
    return max(left, 0.0), max(top, 0.0), min(right, float(grid.shape[1])), min(bottom, float(grid.shape[0]))


def _span(index: int, size: int) -> int:
    """Pixels between the two neighbours of a position that lie in the image."""
    return min(index + 1, size - 1) - max(index - 1, 0)
