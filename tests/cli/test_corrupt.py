"""`redsam corrupt`: one photograph in, one PNG out, and one line for whatever cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from redsam.data import read_image
from redsam.registry import create, names
from tests.cli.conftest import Ran

Redsam = Callable[..., Ran]
Refused = Callable[..., str]


@pytest.fixture
def small(photo: Path, tmp_path: Path) -> Path:
    """The demo photograph at 96 x 64."""
    path = tmp_path / "small.png"
    Image.open(photo).resize((96, 64)).save(path)
    return path


def test_the_file_holds_what_the_library_makes(redsam: Redsam, small: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "a.png"
    ran = redsam("corrupt", small, "--name", "shot-noise", "--severity", 4, "--seed", 3, "--out", out, "--json")
    assert ran.code == 0, ran.err
    row = json.loads(ran.out)
    assert row["corruption"] == {"name": "shot-noise", "args": {"severity": 4}}
    assert (row["size"], row["seed"], row["moved"], row["file"]) == ([64, 96], 3, False, str(out))
    assert 5 < row["psnr"] < 40 and 0 < row["ssim"] < 1
    expected = create("corruption", "shot-noise", severity=4).run(read_image(small)[None], seeds=[3]).images[0]
    assert torch.equal(read_image(out), expected)


def test_it_tells_in_words(redsam: Redsam, small: Path, tmp_path: Path) -> None:
    ran = redsam("corrupt", small, "--name", "elastic", "--out", tmp_path / "e.png")
    assert ran.code == 0 and "elastic at severity 3: PSNR" in ran.out and "pixels moved" in ran.out


def test_corruptions_are_listed(redsam: Redsam) -> None:
    rows = json.loads(redsam("list", "corruptions", "--json").out)
    assert [row["name"] for row in rows] == names("corruption")
    assert all(row["summary"] and row["group"] for row in rows)


@pytest.mark.parametrize("severity", [0, 9, -1])
def test_a_severity_that_is_none(refused: Refused, small: Path, tmp_path: Path, severity: int) -> None:
    out = tmp_path / "a.png"
    line = refused("corrupt", small, "--name", "fog", "--severity", severity, "--out", out)
    assert f"Severity {severity} is not one of 1, 2, 3, 4, 5." in line and "--severity 3" in line
    assert not out.exists()


@pytest.mark.parametrize(("typed", "meant"), [("frst", "frost"), ("Jpg", "jpeg"), ("gausian-noise", "gaussian-noise")])
def test_an_unknown_condition_names_the_nearest(refused: Refused, small: Path, typed: str, meant: str) -> None:
    line = refused("corrupt", small, "--name", typed)
    assert f"There is no corruption named '{typed}'" in line and f"'{meant}'" in line


def test_an_unknown_field(refused: Refused, small: Path) -> None:
    assert "wetness" in refused("corrupt", small, "--name", "fog", "--set", "wetness=2")


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.webp"])
def test_only_png_keeps_every_pixel(refused: Refused, small: Path, tmp_path: Path, name: str) -> None:
    line = refused("corrupt", small, "--name", "fog", "--out", tmp_path / name)
    assert f"Type: --out {tmp_path / 'a.png'}" in line


def test_a_folder_to_write_to(refused: Refused, small: Path, tmp_path: Path) -> None:
    assert "corrupted.png" in refused("corrupt", small, "--name", "fog", "--out", tmp_path)


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "I;16"])
def test_grey_and_alpha_images_are_read_right(redsam: Redsam, tmp_path: Path, mode: str) -> None:
    """Contrast at 5% of a flat image is that image: grey stays grey, what shows through is white."""
    levels = np.full((32, 40), 100, dtype=np.uint8)
    half = np.where(np.arange(40) < 20, 0, 255).astype(np.uint8)[None].repeat(32, 0)
    made = {
        "L": Image.fromarray(levels),
        "P": Image.fromarray(levels).convert("P"),
        "I;16": Image.fromarray(levels.astype(np.uint16) * 257),
        "LA": Image.merge("LA", [Image.fromarray(levels), Image.fromarray(half)]),
        "RGBA": Image.merge("RGBA", [Image.fromarray(c) for c in (levels, levels, levels, half)]),
    }[mode]
    path, out = tmp_path / "in.png", tmp_path / "out.png"
    made.save(path)
    ran = redsam("corrupt", path, "--name", "brightness", "--severity", 1, "--out", out)
    assert ran.code == 0, ran.err
    written = np.array(Image.open(out))
    assert written.shape == (32, 40, 3)
    assert np.unique(written[:, 20:]).tolist() == [126]  # 100 + 0.1 * 255, rounded
    assert np.unique(written[:, :20]).tolist() == [255 if "A" in mode else 126]


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_a_file_that_is_no_image(refused: Refused, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    assert "a.png: " in refused("corrupt", tmp_path / "a.png", "--name", "fog")
