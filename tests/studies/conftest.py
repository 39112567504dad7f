"""A folder of two photographs with masks, another to learn from, and two random models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from redsam.models import tiny
from redsam.models.base import Segmenter


def photographs(root: Path, count: int, *, seed: int) -> Path:
    """Smooth pictures of 104 x 100 pixels (more than 10^4, for the figa sweep) with one large object each."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 255, size=(6, 8, 3), dtype=np.uint8))
        coarse.resize((104, 100), Image.Resampling.BICUBIC).save(root / f"photo{i}.png")
        ids = np.zeros((100, 104), dtype=np.uint8)
        ids[5:95, 5 : 90 + i] = 1
        Image.fromarray(ids).save(root / f"photo{i}_mask.png")
    return root


@pytest.fixture(scope="session")
def tested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images to measure on."""
    return photographs(tmp_path_factory.mktemp("studies") / "tested", 2, seed=0)


@pytest.fixture(scope="session")
def lessons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two other images to learn from."""
    return photographs(tmp_path_factory.mktemp("studies") / "lessons", 2, seed=1)


@pytest.fixture(scope="session")
def model() -> Segmenter:
    """A random SAM of 64 pixels."""
    return tiny("sam")


@pytest.fixture(scope="session")
def victim() -> Segmenter:
    """Another one."""
    made = tiny("sam", seed=1)
    made.name = "other"
    return made
