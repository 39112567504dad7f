"""`redsam harden`: from a command line to a folder and a delta; wrong input is one line; a kill loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from redsam.models import load
from redsam.tuning import Delta
from tests.tuning.conftest import write_photos

SHORT = ("--steps", 2, "--batch", 2, "--held-out", 2, "--check-every", 1, "--attack", "fgsm", "--check-attack", "fgsm",
         "--objects", 1)  # fmt: skip


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", 6)


def test_harden_then_lay_the_delta(redsam: Callable[..., Any], tiny_folder: Path, photos: Path, tmp_path: Path) -> None:
    out, again = tmp_path / "out", tmp_path / "again"
    ran = redsam("harden", tiny_folder, "--data", photos, "--out", out, *SHORT, "--set", "count=40", "--lr", 0.1)
    assert ran.code == 0 and "40 of " in ran.out and "tensors frozen bit for bit" in ran.out
    assert "step 0: clean" in ran.err and "step 2: clean" in ran.err
    laid = redsam("harden", tiny_folder, "--delta", out / "delta.safetensors", "--out", again)
    assert laid.code == 0 and "40 numbers of method svd" in laid.out
    assert load(out).fingerprint() == load(again).fingerprint() == Delta.load(out / "delta.safetensors").after
    told = redsam("harden", tiny_folder, "--data", photos, "--out", out, *SHORT, "--set", "count=40", "--lr", 0.1,
                  "--json")  # fmt: skip
    assert json.loads(told.out)["numbers"] == 40


def test_two_folders_of_photographs(
    redsam: Callable[..., Any], tiny_folder: Path, photos: Path, tmp_path: Path
) -> None:
    more = write_photos(tmp_path / "more", 3)
    ran = redsam("harden", tiny_folder, "--data", photos, "--data", more, "--out", tmp_path / "out", *SHORT,
                 "--method", "bias", "--json")  # fmt: skip
    assert ran.code == 0 and json.loads(ran.out)["data"] == "photos+more"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--method", "svdd"), "no method named 'svdd'. Did you mean 'svd'"),
        (("--method", "jpeg"), "'jpeg' changes images, it trains nothing"),
        (("--set", "layerz=neck"), "layerz"),
        (("--set", "count=many"), "count=many is not what 'svd' takes"),
        (("--attack", "pgdd"), "no attack named 'pgdd'"),
        (("--prompts", "point=x"), "not what --prompts takes"),
        (("--eps", "0"), "budget of 0"),
        (("--held-out", 5), "too few to hold 5 of them out"),
        (("--steps", 0), "steps=0"),
    ],
)
def test_wrong_input_is_one_line(
    refused: Callable[..., str], tiny_folder: Path, photos: Path, tmp_path: Path, options: tuple[Any, ...], told: str
) -> None:
    assert told in refused("harden", tiny_folder, "--data", photos, "--out", tmp_path / "out", *options)


def test_missing_things(refused: Callable[..., str], tiny_folder: Path, tmp_path: Path) -> None:
    assert "nothing to train on" in refused("harden", tiny_folder)
    assert "no such file" in refused("harden", tiny_folder, "--data", tmp_path / "none")
    assert "cannot be read" in refused("harden", tiny_folder, "--delta", tmp_path / "none.safetensors")


def test_lora_without_peft_says_what_to_install(
    refused: Callable[..., str], tiny_folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    line = refused("harden", tiny_folder, "--data", photos, "--out", tmp_path / "out", "--method", "lora", *SHORT)
    assert "Method 'lora' needs the package 'peft'" in line and "redsam[lora]" in line


@pytest.mark.slow
def test_killed_half_way_it_ends_at_the_same_numbers(
    redsam: Callable[..., Any], tiny_folder: Path, photos: Path, tmp_path: Path
) -> None:
    def command(out: Path) -> list[str]:
        long = {"--steps": "40", "--check-every": "10"}
        short = [str(a) for a in SHORT]
        for name, value in long.items():
            short[short.index(name) + 1] = value
        return ["harden", str(tiny_folder), "--data", str(photos), "--out", str(out), *short, "--set", "count=40"]

    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert redsam(*command(straight)).code == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "redsam", *command(killed)], env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    while not (killed / "state.safetensors").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "model.safetensors").exists()
    assert redsam(*command(killed)).code == 0
    one, two = (Delta.load(out / "delta.safetensors") for out in (straight, killed))
    for a, b in zip(one.patches, two.patches, strict=True):
        assert (a.tensors()["change"] - b.tensors()["change"]).abs().max() < 1e-5
