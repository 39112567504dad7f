"""Grids of distinct people: who is drawn, in which orders they are shown, and where each tile lies in pixels.

A grid stops a model from finding the only person there is (Jankowski et al. 2024): n x n different people, one random
photograph each, every tile padded by 3 black pixels on each side.
Deviation: the published notebook draws new permutations for each name of a grid; here its names share them, so that one
image answers n x n names and a name can be compared with the others on the very same pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redsam.errors import InputError
from redsam.seeds import generator
from redsam.types import from_uint8

SIZE = 3
PADDING = 3
PERMUTATIONS = 3


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Where tiles lie. size: tiles a side. tile: (height, width) of a photograph in pixels, padding not counted."""

    size: int = SIZE
    tile: tuple[int, int]
    padding: int = PADDING

    def __post_init__(self) -> None:
        if not 2 <= self.size <= 10:
            raise InputError(f"A grid of {self.size} x {self.size} tiles cannot be used.", hint="Type: --size 3")
        if min(self.tile) < 2 or self.padding < 0:
            raise InputError(f"Tiles of {self.tile[1]} x {self.tile[0]} pixels are too small.")

    @property
    def tiles(self) -> int:
        """Tiles of a grid."""
        return self.size**2

    @property
    def padded(self) -> tuple[int, int]:
        """(height, width) of one tile with its padding."""
        return self.tile[0] + 2 * self.padding, self.tile[1] + 2 * self.padding

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the whole grid."""
        return self.size * self.padded[0], self.size * self.padded[1]

    def tile_at(self, x: float, y: float) -> int | None:
        """Tile of a pixel position, row by row from 0, padding included; None outside the grid."""
        height, width = self.shape
        if not (0 <= x < width and 0 <= y < height):
            return None
        return int(y // self.padded[0]) * self.size + int(x // self.padded[1])

    def box(self, tile: int) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1) of a tile's photograph, without its padding."""
        row, column = divmod(tile, self.size)
        y, x = row * self.padded[0] + self.padding, column * self.padded[1] + self.padding
        return float(x), float(y), float(x + self.tile[1]), float(y + self.tile[0])

    def compose(self, photographs: Sequence[Tensor]) -> Tensor:
        """uint8 3xhxw photographs, tile by tile, to the float32 3xHxW grid in [0, 1]."""
        canvas = torch.zeros(3, *self.shape, dtype=torch.uint8)
        for tile, photograph in enumerate(photographs):
            x0, y0, x1, y1 = (int(v) for v in self.box(tile))
            canvas[:, y0:y1, x0:x1] = photograph
        return from_uint8(canvas)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """One draw. people: T distinct indices, by slot. photographs: which photograph of each. orders: for every
    permutation the slot shown on each tile; the first shows the slots as drawn."""

    index: int
    people: tuple[int, ...]
    photographs: tuple[int, ...]
    orders: tuple[tuple[int, ...], ...]


def draw(
    available: Sequence[int], index: int, *, seed: int, size: int = SIZE, permutations: int = PERMUTATIONS
) -> Grid:
    """Grid number `index` of a seed: the same whatever was drawn before it.

    available: how many photographs each person has. Raises InputError with fewer people than tiles.
    """
    tiles = size**2
    if len(available) < tiles:
        raise InputError(
            f"A grid of {size} x {size} needs {tiles} people, there are {len(available)}.",
            hint="Add people, or type --size 2." if len(available) >= 4 and size > 2 else "Add people.",
        )
    g = generator("privacy grid", seed, index)
    people = tuple(torch.randperm(len(available), generator=g)[:tiles].tolist())
    photographs = tuple(int(torch.randint(available[p], (1,), generator=g)) for p in people)
    orders = [tuple(range(tiles))]
    orders += [tuple(torch.randperm(tiles, generator=g).tolist()) for _ in range(permutations - 1)]
    return Grid(index=index, people=people, photographs=photographs, orders=tuple(orders))
