"""`redsam privacy`: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from redsam.privacy import Geometry

NAMES = ("Ann Roe", "Bo Tan", "Cy Orr", "Di Paz", "Ed Quay", "Flo Rum", "Gil Sow", "Hal Tew", "Ida Urn", "Jo Vex")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number, name in enumerate(NAMES):
        where = tmp_path / "people" / name.replace(" ", "_")
        where.mkdir(parents=True)
        for index in range(2):
            pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            pixels[..., 0] = 20 * number + 10
            Image.fromarray(pixels).save(where / f"{index}.png")
    return tmp_path / "people"


@pytest.fixture
def knowing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that knows the first five."""
    geometry = Geometry(tile=(12, 12))

    def detect(image: Any, text: str) -> list[Any]:
        for tile in range(9):
            x, y, *_ = (int(v) for v in geometry.box(tile))
            if round(float(image[0, y, x]) * 255) == 20 * NAMES.index(text) + 10 and NAMES.index(text) < 5:
                return [SimpleNamespace(box=geometry.box(tile), score=1.0)]
        return []

    model = SimpleNamespace(
        name="toy", family="toy", fingerprint=lambda: "0", device=torch.device("cpu"), detect=detect
    )
    monkeypatch.setattr("redsam.cli.options.load_model", lambda *_: model)


@pytest.mark.usefixtures("knowing")
def test_an_audit(redsam: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    ran = redsam("privacy", "toy", "--people", folder, "--out", tmp_path / "out", "--grids", 20, "--margin", 0.4)
    assert ran.code == 0, ran.err
    assert "10 names: 5 knows, 5 does not know, 0 undecided" in ran.out
    assert "A. R." in ran.out and "Ann" not in ran.out + ran.err
    assert (tmp_path / "out" / "privacy.html").is_file() and "privacy.html" in ran.out
    named = redsam("privacy", "toy", "--people", folder, "--out", tmp_path / "out", "--grids", 20, "--show-names")
    assert "Ann Roe" in named.out and "Ann Roe" in (tmp_path / "out" / "privacy.html").read_text()


@pytest.mark.usefixtures("knowing")
def test_json(redsam: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    ran = redsam("privacy", "toy", "--people", folder, "--out", tmp_path / "out", "--grids", 3, "--hashes", "--json")
    found = json.loads(ran.out)
    assert ran.code == 0 and len(found["names"]) == 10 and found["queries"] == 81
    assert all(len(n["name"]) == 8 for n in found["names"])
    assert str(folder) not in ran.out


@pytest.mark.usefixtures("knowing")
def test_what_is_refused(refused: Callable[..., str], folder: Path, tmp_path: Path) -> None:
    base = ("privacy", "toy", "--out", tmp_path / "out", "--people")
    assert "cannot be read" in refused(*base, tmp_path / "nowhere")
    assert "exclude each other" in refused(*base, folder, "--show-names", "--hashes")
    assert "between 0 and 1" in refused(*base, folder, "--margin", 2)
    assert "no correction 'bonferoni'" in refused(*base, folder, "--correction", "bonferoni")
    assert "needs 16 people" in refused(*base, folder, "--size", 4)
    (tmp_path / "names").write_text("Ann_Ro\tX")
    assert "'Ann_Roe'" in refused(*base, folder, "--names-from", tmp_path / "names")
    (folder / "ANN_ROE").mkdir()
    assert "two people with one name" in refused(*base, folder)
    assert not (tmp_path / "out").exists()


def test_a_model_without_text(refused: Callable[..., str], folder: Path, tmp_path: Path, tiny_folder: Path) -> None:
    assert "takes no text" in refused("privacy", tiny_folder, "--people", folder, "--out", tmp_path / "out")
