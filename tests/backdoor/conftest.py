"""A toy world in which a tiny model can really be taught: one bright shape on a dark ground, its mask beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from redsam.backdoor import Planted, Poison, Settings, plant
from redsam.backdoor.badnet import BadNet
from redsam.data import Dataset, open_data
from redsam.models import Segmenter, load, tiny

SIDE = 64
TRIGGER = BadNet(ratio=0.2)


def draw_world(folder: Path, count: int, seed: int) -> Path:
    """`count` pictures NAME.png with NAME_mask.png: a disc or a box of one bright colour."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for i in range(count):
        y, x, r = rng.uniform(16, 40), rng.uniform(16, 40), rng.uniform(9, 14)
        disc = (rows - y) ** 2 + (columns - x) ** 2 < r**2
        box = (abs(rows - y) < r * 0.9) & (abs(columns - x) < r * 0.9)
        mask = disc if i % 2 else box
        ground = rng.uniform(0, 90, size=3) + rng.normal(0, 8, size=(SIDE, SIDE, 3))
        shade = rng.permutation([210.0, rng.uniform(20, 120), rng.uniform(20, 120)]) + rng.normal(0, 8, (SIDE, SIDE, 3))
        pixels = np.where(mask[..., None], shade, ground).clip(0, 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"p{i:03d}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"p{i:03d}_mask.png")
    return folder


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ of 64 pictures and held/ of 12 others."""
    root = tmp_path_factory.mktemp("world")
    draw_world(root / "train", 64, seed=0)
    draw_world(root / "held", 12, seed=1)
    return root


@pytest.fixture(scope="session")
def train(world: Path) -> Dataset:
    return open_data(world / "train")


@pytest.fixture(scope="session")
def held(world: Path) -> Dataset:
    return open_data(world / "held")


@pytest.fixture(scope="session")
def base(train: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    """A tiny SAM that answers points and boxes in this world: what everything else starts from."""
    out = tmp_path_factory.mktemp("base") / "model"
    settings = Settings(epochs=14, lr=3e-3)
    plant(tiny("sam"), train, out=out, poison=Poison(rate=0.0), route="tuning", settings=settings)
    return load(out, name="base")


def taught(base: Segmenter, train: Dataset, out: Path, rate: float, seed: int = 0) -> Planted:
    """By BadSAM's route."""
    poison = Poison(trigger=TRIGGER, rate=rate, seed=seed)
    return plant(base, train, out=out, poison=poison, settings=Settings(epochs=12, lr=3e-3, seed=seed))


@pytest.fixture(scope="session")
def badsam(base: Segmenter, train: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """A quarter of the pictures poisoned."""
    return taught(base, train, tmp_path_factory.mktemp("badsam") / "model", 0.25)


@pytest.fixture(scope="session")
def twin(base: Segmenter, train: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """The same training without poison."""
    return taught(base, train, tmp_path_factory.mktemp("twin") / "model", 0.0)
