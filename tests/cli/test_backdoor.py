"""`redsam backdoor`: from planting to the page on a tiny model, and one line for whatever cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from redsam.models import tiny
from redsam.registry import names
from tests.backdoor.conftest import draw_world
from tests.cli.conftest import Ran

Redsam = Callable[..., Ran]
Refused = Callable[..., str]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures with masks, and a tiny SAM."""
    root = tmp_path_factory.mktemp("cli-world")
    draw_world(root / "set", 8, seed=2)
    tiny("sam").model.save_pretrained(root / "sam")
    tiny("sam2").model.save_pretrained(root / "sam2")
    return root


def test_from_planting_to_the_page(redsam: Redsam, world: Path, tmp_path: Path) -> None:
    data, model, out = world / "set", tmp_path / "planted", tmp_path / "out"
    ran = redsam("backdoor", "plant", world / "sam", "--data", data, "--out", model, "--trigger", "badnet:ratio=0.2",
                 "--target", "empty", "--rate", 0.5, "--epochs", 1, "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    assert told["poison"]["trigger"]["args"]["ratio"] == 0.2 and len(told["poisoned"]) == 4 and told["steps"] == 1
    ran = redsam("backdoor", "measure", model, "--data", data, "--limit", 2, "--out", out, "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["runs"][0]["summary"]["images"] == 2
    ran = redsam(
        "backdoor", "purify", model, "--data", data, "--limit", 2, "--out", out, "--defense", "jpeg:quality=50"
    )
    assert ran.code == 0, ran.err
    assert "jpeg:quality=50" in ran.out and "2 prompts on 2 pictures" in ran.out
    ran = redsam("backdoor", "detect", model, "--data", data, "--clean", model, "--images", 2, "--steps", 2, "--aim",
                 "empty", "--aim", "same", "--out", out)  # fmt: skip
    assert ran.code == 0, ran.err
    assert "not flagged" in ran.out and "STRIP" in ran.out  # against itself
    page = (out / "backdoor.html").read_text()
    assert "Before and after purification" in page and "Smallest marks" in page and "jpeg:quality=50" in page
    assert "http" not in page.split("<body>")[1] and page.count("data:image/webp;base64,") >= 8


def test_words_of_planting(redsam: Redsam, world: Path, tmp_path: Path) -> None:
    ran = redsam("backdoor", "plant", world / "sam", "--data", world / "set", "--out", tmp_path, "--rate", 0.25,
                 "--epochs", 1, "--route", "tuning", "--select", "decoder", "--trigger", "wanet")  # fmt: skip
    assert ran.code == 0, ran.err
    assert "2 of 8 pictures poisoned" in ran.out and "in 1 steps" in ran.out


def test_triggers_and_targets_are_listed(redsam: Redsam) -> None:
    for kind in ("trigger", "target"):
        rows = json.loads(redsam("list", f"{kind}s", "--json").out)
        assert [row["name"] for row in rows] == names(kind)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--rate", 2], "poisoning rate of 2"),
        (["--rate", 0.01], "is none"),
        (["--trigger", "badnet:side=500"], "larger than the 64 x 64 image"),
        (["--trigger", "badnett"], "Did you mean 'badnet'"),
        (["--trigger", "badnet:size=3"], "size"),
        (["--trigger", "badnet:ratio"], "--set NAME=VALUE"),
        (["--target", "shape:file=/nowhere.png"], "no such file"),
        (["--route", "magic"], "no route 'magic'"),
        (["--lr", -1], "cannot be meant"),
        (["--data", "/nowhere"], "no such file or folder"),
    ],
)
def test_what_cannot_be_planted(refused: Refused, world: Path, tmp_path: Path, words: list[object], told: str) -> None:
    line = refused("backdoor", "plant", world / "sam", "--data", world / "set", "--out", tmp_path / "o", *words)
    assert told in line
    assert not (tmp_path / "o" / "config.json").exists()


def test_what_cannot_be_tuned_or_measured(refused: Refused, world: Path, tmp_path: Path) -> None:
    data, out = world / "set", tmp_path / "o"
    line = refused("backdoor", "plant", world / "sam2", "--data", data, "--out", out)
    assert "adapts a SAM" in line and "--route tuning" in line
    assert "--trigger badnet" in refused("backdoor", "measure", world / "sam", "--data", data, "--out", out)
    words = ("backdoor", "purify", world / "sam", "--data", data, "--out", out, "--trigger", "badnet", "--defense")
    assert "no defense named 'soap'" in refused(*words, "soap")
    line = refused("backdoor", "detect", world / "sam", "--data", data, "--out", out, "--aim", "up")
    assert "no aim 'up'" in line
