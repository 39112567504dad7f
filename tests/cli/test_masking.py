"""`redsam masking`: five checks as a table or JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Ran

QUICK = ("--limit", 1, "--steps", 4, "--queries", 12, "--objects", 1)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Two small annotated images."""
    root = tmp_path / "photographs"
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        Image.fromarray(random.integers(0, 256, (32, 40, 3), dtype=np.uint8)).save(root / "images" / f"{name}.png")
        mask = np.zeros((32, 40), dtype=np.uint8)
        mask[8:24, 10:30] = 255
        Image.fromarray(mask).save(root / "masks" / f"{name}.png")
    return root


def test_the_report_as_json(redsam: Callable[..., Ran], tiny_folder: Path, photographs: Path) -> None:
    ran = redsam("masking", "--model", tiny_folder, "--data", photographs, *QUICK, "--json")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    assert (report["images"], report["prompts"], report["skipped"]) == (1, 1, 0)
    assert report["eps"] == pytest.approx(8 / 255)
    assert len(report["findings"]) == 5
    assert set(report["findings"][0]) == {"name", "triggered", "numbers", "meaning"}
    assert report["triggered"] == [f["name"] for f in report["findings"] if f["triggered"]]
    # start 1; PGD short 1, long 4, APGD 4, FGSM 1, unbounded 4.
    assert report["gradients"] == 15


def test_the_table_says_what_a_warning_means(redsam: Callable[..., Ran], tiny_folder: Path, photographs: Path) -> None:
    ran = redsam("masking", "--model", tiny_folder, "--data", photographs, *QUICK, "--eps", "2/255")
    assert ran.code == 0, ran.err
    for name in ("dead gradients", "black box beats white box", "unbounded attack fails"):
        assert name in ran.out
    assert "linf 2/255" in ran.out and "of 5 checks warn" in ran.out


def test_bad_options_are_one_line(refused: Callable[..., str], tiny_folder: Path, photographs: Path) -> None:
    known = ("masking", "--model", tiny_folder, "--data", photographs)
    assert "not an eps" in refused(*known, "--eps", "much")
    assert "one grey level" in refused(*known, "--eps", "0")
    assert "protocol" in refused(*known, "--protocol", "ponit")
    for mask in (photographs / "masks").iterdir():
        Image.fromarray(np.zeros((32, 40), dtype=np.uint8)).save(mask)
    assert "no image has an object" in refused(*known)
