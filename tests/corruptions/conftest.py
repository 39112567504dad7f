"""Pictures to corrupt: noise for exactness, photographs for meaning."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from redsam.data import read_image
from redsam.data.demo import demo_root
from redsam.models.resample import resize
from redsam.types import from_uint8, to_uint8


def pictures(count: int, height: int = 40, width: int = 56, seed: int = 0) -> Tensor:
    """Noise on the lattice: every pixel is distinctive."""
    random = torch.Generator().manual_seed(seed)
    return from_uint8(torch.randint(0, 256, (count, 3, height, width), generator=random, dtype=torch.uint8))


def checkerboard(height: int, width: int, cell: int) -> Tensor:
    """Bool HxW."""
    rows, columns = torch.arange(height) // cell, torch.arange(width) // cell
    return (rows[:, None] + columns) % 2 == 0


def shrunk(height: int, width: int) -> Tensor:
    """Three bundled photographs of this size, on the lattice."""
    small = [
        resize(read_image(demo_root() / f"{n}.jpg")[None], (height, width)) for n in ("chelsea", "china", "coffee")
    ]
    return from_uint8(to_uint8(torch.cat(small)))


@pytest.fixture(scope="session")
def photographs() -> Tensor:
    """Three bundled photographs at 128 x 192."""
    return shrunk(128, 192)


@pytest.fixture(scope="session")
def published_size() -> Tensor:
    """The same at 224 x 336, where lengths are those of the papers; below it some are less than a pixel."""
    return shrunk(224, 336)
