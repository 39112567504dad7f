"""Toy people (coloured noise with a code for who it is) and detectors that know some of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from redsam.privacy import Geometry, People, read_people

NAMES = (
    "Arlo Finch", "Bela Quist", "Cato Umber", "Dora Vance", "Edda Wolk", "Finn Yarrow",
    "Gus Zeller", "Hela Abend", "Ivo Brandt", "Jana Colm", "Kai Dorn", "Lena Ebner",
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """A detection as the protocol wants it."""

    box: tuple[float, float, float, float]
    score: float = 0.9


def write_people(root: Path, names: tuple[str, ...] = NAMES, photographs: int = 3) -> Path:
    """A folder per person; the red channel of all photographs of one person is one grey level."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(names):
        folder = root / name.replace(" ", "_")
        folder.mkdir(parents=True)
        for index in range(photographs):
            pixels = rng.integers(0, 256, (20, 16, 3), dtype=np.uint8)
            pixels[..., 0] = 10 + 20 * number
            Image.fromarray(pixels).save(folder / f"{index}.png")
    return root


@dataclass
class Toy:
    """Knows the first `known` of the names: marks their tile. Any other name marks nothing, or a tile by position."""

    known: int
    guess: bool = False
    calls: int = 0

    def __call__(self, image: Tensor, text: str) -> list[Found]:
        self.calls += 1
        geometry = Geometry(tile=(20, 16))
        number = NAMES.index(text) if text in NAMES else len(NAMES)
        for tile in range(9):
            x, y, *_ = (int(v) for v in geometry.box(tile))
            level = round(float(image[0, y, x]) * 255)
            if level == 10 + 20 * number and number < self.known:
                return [Found(box=geometry.box(tile))]
        if self.guess and number >= self.known:
            return [Found(box=geometry.box((self.calls * 7) % 9))]
        return []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_people(tmp_path / "people")


@pytest.fixture
def people(folder: Path) -> People:
    return read_people(folder)


@pytest.fixture
def toy() -> Callable[..., Toy]:
    return Toy
