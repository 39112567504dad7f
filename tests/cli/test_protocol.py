"""`redsam protocol`: published rows beside measured ones, resumed, and refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from redsam import registry
from redsam.models import tiny
from tests.cli.conftest import Ran

Redsam = Callable[..., Ran]
QUICK = ("--set", 'attacks=["aa"]', "--set", "steps=1", "--set", 'prompting={"points": 1, "boxes": 1}', "--limit", 1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures with an object each."""
    root = tmp_path_factory.mktemp("protocol")
    rng = np.random.default_rng(0)
    for i in range(2):
        small = Image.fromarray(rng.integers(0, 255, size=(6, 8, 3), dtype=np.uint8))
        small.resize((64, 48), Image.Resampling.BICUBIC).save(root / f"p{i}.png")
        ids = np.zeros((48, 64), dtype=np.uint8)
        ids[5:30, 5:30] = 1
        Image.fromarray(ids).save(root / f"p{i}_mask.png")
    return root


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another tiny model on disk."""
    folder = tmp_path_factory.mktemp("second") / "second"
    tiny("sam", seed=1).model.save_pretrained(folder)
    return folder


def test_a_table_with_published_rows_and_json(
    redsam: Redsam, tiny_folder: Path, second: Path, photos: Path, tmp_path: Path
) -> None:
    line = ("protocol", "rga-transfer", "--model", tiny_folder, "--victims", second, "--data", photos, *QUICK,
            "--batch-size", 2)  # fmt: skip
    ran = redsam(*line, "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert "| aa | second | point | 1 | 1 | 0 |" in ran.out
    assert "| aa | SAM-B | all | 1000 | 79672 |" in ran.out and "| another model and data |" in ran.out
    assert ran.out.strip().splitlines()[-1] == str(tmp_path / "out" / "study.md")
    assert (tmp_path / "out" / "report.html").is_file()
    again = redsam(*line, "--out", tmp_path / "out", "--json")
    found = json.loads(again.out)
    assert again.code == 0 and "5 of 5 cells were finished earlier" in again.err
    assert found == json.loads((tmp_path / "out" / "study.json").read_text())
    assert found["victims"] == ["second"] and found["study"]["args"]["steps"] == 1
    command = json.loads((tmp_path / "out" / "summary.json").read_text())["env"]["command"]
    assert command.startswith("redsam protocol rga-transfer --model") and "--set 'attacks=[\"aa\"]'" in command
    assert "--batch-size 2" in command and "--dtype" not in command and "--seed" not in command


def test_list_studies(redsam: Redsam) -> None:
    rows = json.loads(redsam("list", "studies", "--json").out)
    assert [r["name"] for r in rows] == registry.names("study") and all(r["paper"] and r["summary"] for r in rows)
    assert json.loads(redsam("list", "study", "--json").out) == rows
    assert "Did you mean 'studies'" in redsam("list", "studis").err


def test_help(redsam: Redsam) -> None:
    ran = redsam("protocol", "--help")
    assert ran.code == 0 and "--victims" in ran.out


def test_refusals(refused: Callable[..., str], tiny_folder: Path, photos: Path, tmp_path: Path) -> None:
    base = ("--model", tiny_folder, "--data", photos, "--out", tmp_path / "out")
    assert "Did you mean 'rga-transfer'" in refused("protocol", "rga-transfr", *base)
    assert "no attack named 'pgdd'" in refused("protocol", "rga-transfer", *base, "--set", 'attacks=["pgdd"]')
    assert "Did you mean 'steps'" in refused("protocol", "rga-transfer", *base, "--set", "stps=3")
    assert "takes no victims" in refused("protocol", "figa-sweep", *base, "--victims", "lab-b")
    assert "--train DIR" in refused("protocol", "universal", *base)
    assert "nowhere" in refused("protocol", "eps-curve", "--model", tiny_folder, "--data", photos / "nowhere")
    assert not (tmp_path / "out").exists()
