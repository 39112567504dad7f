"""Thin-plate-spline flows: an image deformed by a few control points, differentiable in where they lie.

Positions are (y, x) in a square frame of 1024 pixels stretched over the image, corner pixel on corner pixel, so that
numbers published for SAM's 1024-pixel input need no scaling. A flow moves `source` to `dest`: the warped image shows at
a dest point what the image shows at its source point.
Source of the spline: Bookstein, Principal Warps (1989), with kernel r^2 log r.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 1024
LAST = SIDE - 1.0  # the last pixel's position
# A flow is evaluated at this many nodes per axis and bilinear between them: one every 8 frame pixels.
NODES = 129
# Keeps the system solvable when two points meet; moves an interpolated value by far less than a hundredth of a pixel.
RIDGE = 1e-9


def control_grid(count: int) -> Tensor:
    """count^2 x 2 centres of the frame's count x count blocks, float64."""
    block = SIDE // count
    axis = ((torch.arange(count, dtype=torch.float64) + 0.5) * block).floor()
    return torch.cartesian_prod(axis, axis)


def spline(points: Tensor, values: Tensor, query: Tensor) -> Tensor:
    """Thin-plate spline through `values` at `points`, at `query`: *xnx2, *xnxk, mx2 (all float64) to *xmxk.

    Of all interpolants the one that bends least; affine values give exactly the affine map. Works in units of the frame
    so that the system is well scaled.
    """
    points, query = points / SIDE, query / SIDE
    count, values_count = points.shape[-2], values.shape[-1]
    one = torch.ones_like(points[..., :1])
    affine = torch.cat([one, points], dim=-1)
    kernel = _bend(points, points) + RIDGE * torch.eye(count, dtype=points.dtype, device=points.device)
    corner = points.new_zeros(*points.shape[:-2], 3, 3)
    system = torch.cat([torch.cat([kernel, affine], -1), torch.cat([affine.transpose(-1, -2), corner], -1)], dim=-2)
    known = torch.cat([values, values.new_zeros(*values.shape[:-2], 3, values_count)], dim=-2)
    weights = torch.linalg.solve(system, known)
    linear = torch.cat([torch.ones_like(query[:, :1]), query], dim=-1)
    found: Tensor = _bend(query, points) @ weights[..., :count, :] + linear @ weights[..., count:, :]
    return found


def _bend(query: Tensor, points: Tensor) -> Tensor:
    """r^2 log r between mx2 (or *xmx2) and *xnx2: *xmxn; zero, with slope zero, at r = 0."""
    lengths = query.square().sum(-1)[..., :, None] + points.square().sum(-1)[..., None, :]
    squared = (lengths - 2 * query @ points.transpose(-1, -2)).clamp_min(1e-30)
    return 0.5 * squared * squared.log()


def dense_flow(source: Tensor, dest: Tensor, size: tuple[int, int]) -> Tensor:
    """The displacement at every pixel of the warped image: *xnx2 twice to *xHxWx2, in frame pixels."""
    nodes = (min(size[0], NODES), min(size[1], NODES))
    found = spline(dest, dest - source, pixels(nodes, dest))
    found = found.transpose(-1, -2).reshape(-1, 2, *nodes)
    if nodes != size:
        found = F.interpolate(found, size, mode="bilinear", align_corners=True)
    return found.movedim(1, -1).reshape(*dest.shape[:-2], *size, 2)


def pixels(size: tuple[int, int], like: Tensor) -> Tensor:
    """HWx2 frame positions of an image's pixels."""
    axes = [torch.linspace(0, LAST, side, dtype=like.dtype, device=like.device) for side in size]
    return torch.cartesian_prod(*axes)


def warp(images: Tensor, flows: Tensor) -> Tensor:
    """BxCxHxW and BxKxHxWx2 to BxKxCxHxW: each pixel p shows the image at p - flow, bilinear, edges continued."""
    (batch, count), size = flows.shape[:2], (int(images.shape[-2]), int(images.shape[-1]))
    at = (pixels(size, flows).view(*size, 2) - flows).flatten(0, 1) / LAST * 2 - 1
    repeated = images[:, None].expand(-1, count, -1, -1, -1).flatten(0, 1)
    out = F.grid_sample(repeated, at.flip(-1).to(images), padding_mode="border", align_corners=True)
    return out.view(batch, count, *images.shape[1:])


def checkerboard(size: tuple[int, int], stride: int) -> Tensor:
    """1x1xHxW of 0 and 1 in cells of `stride` frame pixels, 0 in the top left one."""
    rows, columns = ((torch.linspace(0, LAST, side, dtype=torch.float64) // stride).long() for side in size)
    return ((rows[:, None] + columns) % 2)[None, None].double()


def patchwork(warped: Tensor, board: Tensor) -> Tensor:
    """BxKxCxHxW and Bx1xHxW to BxCxHxW: the brightest of the K values where the board is 1, the darkest where it is 0,
    so that neighbouring patches follow different flows."""
    return warped.amax(1) * board + warped.amin(1) * (1 - board)


def control_loss(source: Tensor, dest: Tensor, across: float = 0.5) -> Tensor:
    """B from BxKxnx2 twice: the spread of the movement within a flow (small is one coherent movement) minus `across`
    times its spread from flow to flow (large is different flows); sample standard deviations in frame pixels."""
    moved = dest - source
    within = moved.std(2).mean((1, 2))
    return within - across * moved.std(1).mean((1, 2)) if moved.shape[1] > 1 else within
