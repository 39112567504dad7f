"""Patch: one opaque square on a picture, differentiable in its place and its colours; what lift.py seeks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

EDGE = 0.01  # width of the soft edge in shorter sides; place has no gradient without one


@dataclass(frozen=True, kw_only=True, eq=False)
class Patch:
    """place: (top, left) in [0, 1] of the room a square of `side` shorter sides has. pattern: 3xcxc, logits."""

    place: Tensor
    pattern: Tensor
    side: float

    def lay(self, image: Tensor) -> Tensor:
        """3xHxW in [0, 1] with the square on it; differentiable in place and pattern."""
        height, width = image.shape[-2:]
        half = self.side * min(height, width) / 2
        rows, columns = (
            torch.arange(n, device=image.device, dtype=image.dtype) + 0.5 - half - self._at(i) * (n - 2 * half)
            for i, n in enumerate((height, width))
        )
        soft = EDGE * min(height, width)
        inside = ((half - rows.abs()) / soft).sigmoid()[:, None] * ((half - columns.abs()) / soft).sigmoid()[None]
        grid = torch.stack([columns[None].expand(height, -1), rows[:, None].expand(-1, width)], -1) / half
        shown = F.grid_sample(
            self.pattern.sigmoid()[None], grid[None].clamp(-1, 1), align_corners=False, padding_mode="border"
        )
        return (1 - inside) * image + inside * shown[0]

    def box(self, height: int, width: int) -> tuple[float, float, float, float]:
        """(top, left, bottom, right) as shares of a picture, the soft edge with it."""
        side, soft = self.side * min(height, width), EDGE * min(height, width)
        top, left = (float(self._at(i).detach()) * (n - side) for i, n in enumerate((height, width)))
        return (
            max(0.0, (top - soft) / height), max(0.0, (left - soft) / width),
            min(1.0, (top + side + soft) / height), min(1.0, (left + side + soft) / width),
        )  # fmt: skip

    def _at(self, axis: int) -> Tensor:
        return self.place[axis].clamp(0, 1)


def drawn(patch: Patch, cells: int) -> tuple[Tensor, Tensor]:
    """The square on a gxg grid of a square picture: how far each cell is covered, and 3xgxg its colours."""
    black, white = (patch.lay(torch.full((3, 8 * cells, 8 * cells), v).to(patch.place)).detach().cpu() for v in (0, 1))
    size = (cells, cells)
    colour, cover = (F.adaptive_avg_pool2d(t, size) for t in (black, (1 - (white - black))[:1]))
    return cover[0], (colour / cover.clamp(min=1e-3)).clamp(0, 1)
