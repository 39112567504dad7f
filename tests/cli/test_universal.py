"""`redsam universal` and `redsam attack --set artefact=FILE`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from redsam.attacks.artefact import Artefact
from redsam.cli.universal import Bar
from redsam.data import read_image
from tests.cli.conftest import Ran

Run = Callable[..., Ran]
Refused = Callable[..., str]


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for i in range(3):
        noise = np.random.default_rng(i).integers(60, 200, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"image{i}.png")
    return folder


@pytest.fixture
def learn(redsam: Run, tiny_folder: Path, photographs: Path, tmp_path: Path) -> Run:
    def run(*more: object) -> Ran:
        return redsam(
            "universal", "uap-contrast", "--model", tiny_folder, "--data", photographs, "--epochs", 1, "--size", 16,
            "--set", "samples=1", "--out", tmp_path / "out" / "delta", *more,
        )  # fmt: skip

    return run


def test_learned_then_laid_onto_a_photograph(
    learn: Run, redsam: Run, tiny_folder: Path, photo: Path, tmp_path: Path
) -> None:
    ran = learn("--json", "--eps", "6/255", "--set", "step_size=2/255")
    told, file = json.loads(ran.out), tmp_path / "out" / "delta"
    assert (
        ran.code == 0 and told["file"] == str(file) and told["ids"] and told["attack"]["args"]["step_size"] == 2 / 255
    )
    artefact = Artefact.load(file)
    assert artefact.eps == 6 / 255 and artefact.steps == 3 and artefact.delta.shape == (3, 16, 16)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["delta"]
    again = learn("--eps", "6/255", "--set", "step_size=2/255")  # finished: says so, changes nothing
    assert again.code == 0 and again.out.splitlines()[-1] == str(file)

    out = tmp_path / "attacked"
    ran = redsam(
        "attack", photo, "--model", tiny_folder, "--attack", "uap-contrast", "--eps", "6/255", "--point", "190,120",
        "--set", f"artefact={file}", "--set", "samples=1", "--out", out, "--json",
    )  # fmt: skip
    result = json.loads(ran.out)
    assert ran.code == 0 and result["gradients"] == 0 and 0 < result["budget"]["linf_levels"] <= 6
    clean = read_image(photo)
    moved = read_image(out / "adversarial.png") - clean
    inside = ((clean > 0.1) & (clean < 0.9)).float()
    laid = artefact.on((clean.shape[1], clean.shape[2]))
    assert float(((moved - laid) * inside).abs().max()) <= 0.5 / 255 + 1e-5


def test_interrupted_it_says_how_to_go_on_and_goes_on(
    learn: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell = Bar.__call__

    def stop(self: Bar, *, done: int, total: int, note: str) -> None:
        tell(self, done=done, total=total, note=note)
        if done == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Bar, "__call__", stop)
    ran = learn()
    assert ran.code == 130 and "interrupted after 2 of 3 images; the same command again goes on" in ran.err
    assert (tmp_path / "out" / "delta.state").exists()
    monkeypatch.undo()
    ran = learn()
    assert ran.code == 0 and "going on: 2 of 3 images" in ran.err
    assert "3 images, 3 gradients" in ran.out


def test_what_is_refused(
    refused: Refused, redsam: Run, tiny_folder: Path, photographs: Path, photo: Path, tmp_path: Path
) -> None:
    model, out = ("--model", tiny_folder), ("--out", tmp_path / "out")
    assert "darksam" in refused("universal", "darksan", *model, *out)
    assert "These do: darksam, uap-contrast" in refused("universal", "pgd", *model, *out)
    assert "no such file" in refused("universal", "darksam", *model, *out, "--data", tmp_path / "nowhere")
    assert "8/255" in refused("universal", "darksam", *model, *out, "--eps", "8")
    assert "is a folder" in refused("universal", "darksam", *model, "--out", tmp_path)
    assert "'samples'" in refused("universal", "darksam", *model, *out, "--set", "sample=3")
    assert "samples=many" in refused("universal", "darksam", *model, *out, "--set", "samples=many")
    assert "'x/y' is not" in refused("universal", "darksam", *model, *out, "--set", "tau=x/y")
    broken = tmp_path / "broken"
    broken.write_bytes(b"PK\x03\x04 a zip, as torch.save writes")
    attack = ("attack", photo, *model, "--attack", "darksam", "--point=190,120", *out)
    assert "a pickle" in refused(*attack, "--set", f"artefact={broken}")
    assert "cannot be read" in refused(*attack, "--set", f"artefact={tmp_path / 'absent'}")
    assert "Did you mean 'artefact'" in refused(*attack, "--set", f"artifact={broken}")
    assert "fit" in refused(*attack, "--set", "fit=crop")
    assert not list((tmp_path / "out").glob("*"))
    state = tmp_path / "delta.state"
    state.write_bytes(b"nonsense")
    go = ("universal", "darksam", *model, "--data", photographs, "--out", tmp_path / "delta", "--limit", 1)
    assert "delta.state: broken" in refused(*go)
