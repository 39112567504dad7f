"""A small folder of photographs with masks, a random model, and a preset that takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from redsam.bench import RunStore, read_records
from redsam.bench.evaluate import comparable
from redsam.bench.presets import BOX, POINT, Preset, Trial, linf
from redsam.bench.spec import JsonDict
from redsam.models import tiny
from redsam.models.base import Segmenter

SMALL = Preset(
    name="small",
    summary="for tests",
    protocols=(POINT, BOX),
    trials=(Trial(attack="fgsm", threats=linf(8)), Trial(attack="pgd", args={"steps": 2}, threats=linf(4, 8))),
)


def folder_of(root: Path, count: int = 5, *, sizes: tuple[tuple[int, int], ...] = ((48, 64),)) -> Path:
    """`count` smooth images with two objects each, NAME.png beside NAME_mask.png; sizes (height, width) in turn."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        height, width = sizes[i % len(sizes)]
        coarse = Image.fromarray(rng.integers(0, 255, size=(6, 8, 3), dtype=np.uint8))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(root / f"photo{i}.png")
        ids = np.zeros((height, width), dtype=np.uint8)
        ids[5:25, 5 : 25 + i] = 1
        ids[28:44, 30:60] = 2
        Image.fromarray(ids).save(root / f"photo{i}_mask.png")
    return root


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five images of one size."""
    return folder_of(tmp_path_factory.mktemp("data") / "photos")


def records_of(out: Path, *, attack: str | None = None) -> dict[tuple[str, str], JsonDict]:
    """Every record by (cell, sample), of one attack if named; a pair that is there twice fails."""
    found: dict[tuple[str, str], JsonDict] = {}
    for cell in RunStore(out).cells():
        for record in read_records(cell.samples):
            key = record["cell"], record["sample"]
            assert key not in found, "a record is there twice"
            if attack in (None, cell.cell.probe["name"]):
                found[key] = record
    return found


@dataclass(frozen=True)
class Kit:
    """What tests of whole runs share. small: 8 cells. one: FGSM with point prompts, 2 cells."""

    small: Preset = SMALL
    one: Preset = replace(SMALL, protocols=(POINT,), trials=(Trial(attack="fgsm", threats=linf(8)),))
    folder = staticmethod(folder_of)
    records = staticmethod(records_of)

    def same(self, out: Path) -> dict[tuple[str, str], JsonDict]:
        """The records without what differs from run to run."""
        return {key: comparable(record) for key, record in records_of(out).items()}


@pytest.fixture(scope="session")
def kit() -> Kit:
    """Shared helpers, handed over as a fixture because tests are no package."""
    return Kit()


@pytest.fixture(scope="session")
def model() -> Segmenter:
    """A random SAM of 64 pixels."""
    return tiny("sam")


def close_to(a: Any, b: Any) -> None:
    """Equal up to float noise of another order of summation."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            if not key.startswith("rle"):
                close_to(a[key], b[key])
    elif isinstance(a, list):
        for x, y in zip(a, b, strict=True):
            close_to(x, y)
    else:
        assert a == (pytest.approx(b, rel=1e-3, abs=1e-2) if isinstance(a, float) else b)


@pytest.fixture(scope="session")
def close() -> Callable[[Any, Any], None]:
    """`close(record, other)` fails where two records differ by more than float noise."""
    return close_to
