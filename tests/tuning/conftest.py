"""Photographs with masks of a bright disk, and the shortest course there is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from redsam import registry
from redsam.data import Dataset, open_data
from redsam.errors import MissingExtra
from redsam.tuning import Course, Tuning

METHODS = [e.name for e in registry.entries("defense") if e.meta["group"] == "tuning"]


def write_photos(folder: Path, count: int) -> Path:
    """NAME.png with NAME_mask.png, three sizes in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        height, width = [(48, 64), (64, 48), (56, 56)][i % 3]
        y, x = np.mgrid[:height, :width]
        disk = (y - height / 2) ** 2 + (x - width / 2) ** 2 < (12 + i % 4) ** 2
        image = rng.integers(0, 120, size=(height, width, 3))
        image[disk] = rng.integers(130, 255, size=3)
        Image.fromarray(image.astype(np.uint8)).save(folder / f"p{i}.png")
        Image.fromarray(disk.astype(np.uint8)).save(folder / f"p{i}_mask.png")
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of 8."""
    return write_photos(tmp_path / "photos", 8)


@pytest.fixture
def data(photos: Path) -> Dataset:
    return open_data(photos)


@pytest.fixture
def quick() -> Callable[..., Course]:
    """Four steps of two images; any field may be given."""

    def make(**fields: Any) -> Course:
        few: dict[str, Any] = {
            "steps": 4, "batch": 2, "attacks": ("fgsm", "pgd:steps=1,objective=bce"), "check_attacks": ("fgsm",),
            "objects": 1, "held_out": 2, "check_every": 2, "save_every": 1, "clean_loss": 1.0,
        }  # fmt: skip
        return Course(**(few | fields))

    return make


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> Tuning:
    """Every registered tuning; a new one is tested without an edit here."""
    if request.param == "lora":
        from redsam.tuning.lora import required

        try:
            required()
        except MissingExtra as error:
            pytest.skip(str(error))
    made: Tuning = registry.create("defense", request.param)
    return made
