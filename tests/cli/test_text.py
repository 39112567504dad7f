"""`--text`: attacked, written down, and refused in one line where it cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from redsam.cli.app import app
from redsam.models import tiny

Refused = Callable[..., str]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random lab-text as its recipe ships it."""
    folder = tmp_path_factory.mktemp("models") / "reader"
    net: Any = tiny("lab-text", seed=1).model
    net.save_pretrained(folder)
    return folder


def test_an_attack_by_name(reader: Path, photo: Path, tmp_path: Path) -> None:
    words = ["attack", str(photo), "--model", str(reader), "--text", "a cup", "--text", "spoon", "--steps", "1"]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path), "--device", "cpu"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "result.json").read_text())
    assert [row["prompt"] for row in result["prompts"]] == [
        {"kind": "text", "text": "a cup"},
        {"kind": "text", "text": "spoon"},
    ]
    assert "a cup" in done.output


def test_texts_that_cannot_be_asked(
    refused: Refused, reader: Path, tiny_folder: Path, photo: Path, tmp_path: Path
) -> None:
    out = ["--out", tmp_path, "--device", "cpu"]
    assert "10,000 characters" in refused("attack", photo, "--model", reader, "--text", "x" * 10_000, *out)
    assert "is empty" in refused("attack", photo, "--model", reader, "--text", "  ", *out)
    assert "takes no text prompt" in refused("attack", photo, "--model", tiny_folder, "--text", "cup", *out)
    assert "takes texts only" in refused("attack", photo, "--model", reader, "--point", "3,3", *out)
    assert "detector and a segmenter" in refused("attack", photo, "--model", "grounded:x", "--text", "cup", *out)
    assert not list(tmp_path.glob("*.png"))
