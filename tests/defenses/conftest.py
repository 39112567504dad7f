"""Pictures to purify: noise for exactness, photographs for meaning."""

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


@pytest.fixture(scope="session")
def photographs() -> Tensor:
    """Three bundled photographs at 64 x 96, on the lattice."""
    small = [resize(read_image(demo_root() / f"{n}.jpg")[None], (64, 96)) for n in ("chelsea", "china", "coffee")]
    return from_uint8(to_uint8(torch.cat(small)))
