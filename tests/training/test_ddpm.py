"""The recipe of lab-ddpm on planted photographs: steps teach, a killed run goes on as if it had not been."""

from __future__ import annotations

import argparse
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

pytest.importorskip("diffusers")

import ddpm as recipe
import train_ddpm

from redsam.defenses import parse
from redsam.defenses.diffusion_models import denoiser

SIDE, STEPS = 16, 30


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe at 16 pixels."""
    made = recipe.Recipe(channels=(8, 16), groups=4, side=SIDE, batch=8, lr=3e-3)
    for module in (recipe, train_ddpm):
        monkeypatch.setattr(module, "RECIPE", made)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Forty-eight smooth pictures of 60 x 80 pixels: number 7 and 47 are held out."""
    folder = tmp_path / "pool" / "set"
    folder.mkdir(parents=True)
    for i in range(48):
        rows, columns = np.mgrid[:60, :80]
        grey = 127 + 100 * np.sin((rows * (i % 5) + columns * (i % 7)) / 40)
        Image.fromarray(np.stack([grey, 255 - grey, grey], -1).astype(np.uint8)).save(
            folder / f"{i:02d}.webp", lossless=True
        )
    return folder.parent


def arguments(out: Path, *, save: str = "99") -> argparse.Namespace:
    words = ["--data", "x", "--out", str(out), "--steps", str(STEPS), "--minutes", "99", "--device", "cpu"]
    return train_ddpm.parse([*words, "--threads", "1", "--save", save])


def crops(photographs: recipe.Photographs, count: int = 16) -> Tensor:
    return recipe.draw(photographs, count=count, side=SIDE, gen=torch.Generator().manual_seed(3))


def test_photographs_are_those_of_the_pool_and_crops_lie_in_them(pool: Path, tmp_path: Path) -> None:
    taught, held = (recipe.load_photographs(pool, least=SIDE, held_out=h) for h in (False, True))
    assert (len(taught), len(held)) == (46, 2)
    assert held.sizes[0] == (60, 80), "a small picture stays as it is"
    whole = np.asarray(Image.open(pool / "set" / "07.webp").convert("RGB"))
    assert (held.crop(0, 5, 7, 20).permute(1, 2, 0).numpy() == whole[5:25, 7:27]).all()
    drawn = crops(taught, 40)
    assert drawn.shape == (40, 3, SIDE, SIDE) and -1 <= float(drawn.min()) < float(drawn.max()) <= 1
    assert torch.equal(drawn, crops(taught, 40))
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        for i, file in enumerate(sorted(pool.glob("*/*.webp"))):
            blob = io.BytesIO()
            Image.open(file).save(blob, "WEBP", lossless=True)
            archive.writestr(f"{i:05d}.webp", blob.getvalue())
        archive.writestr("index.json", json.dumps([{"set": "voc"}] * 48))
    packed = recipe.load_photographs(tmp_path / "packed.zip", least=SIDE)
    assert torch.equal(packed.pixels, taught.pixels) and packed.sizes == taught.sizes
    assert set(taught.sets) == {"set"} and packed.sets == ("voc",) * 46


def test_large_photographs_are_made_smaller_and_never_too_small(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for i, size in enumerate(((500, 400), (390, 380), (400, 20))):
        Image.new("RGB", size).save(tmp_path / "a" / f"{i}.webp")
    sizes = recipe.load_photographs(tmp_path, least=48).sizes
    assert all(recipe.LEAST <= max(s) <= recipe.MOST for s in sizes[:2]) and sizes[0][1] > sizes[0][0]
    assert min(sizes[2]) == 48


def test_little_noise_is_asked_for_most() -> None:
    t = 1000 * torch.rand(50_000, generator=torch.Generator().manual_seed(0)).square()
    assert abs(float((t < 100).float().mean()) - 0.316) < 0.01 and abs(float((t < 400).float().mean()) - 0.632) < 0.01


def test_steps_teach_and_a_killed_run_ends_where_an_unbroken_one_does(
    pool: Path, tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    photographs = recipe.load_photographs(pool, least=SIDE)
    watching = crops(recipe.load_photographs(pool, least=SIDE, held_out=True), 8)
    fresh = recipe.held_out_score(recipe.RECIPE.build(), recipe.scheduler(), watching)
    whole = train_ddpm.train(arguments(tmp_path / "whole"), photographs, watching)
    assert whole.step == STEPS and whole.history[-1]["psnr_100"] > fresh["psnr_100"] + 1

    taken, step = 0, train_ddpm.one_step

    def killed(*args: object, **more: object) -> dict[str, float]:
        nonlocal taken
        taken += 1
        if taken > 6:
            raise KeyboardInterrupt
        return step(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(train_ddpm, "one_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train_ddpm.train(arguments(tmp_path / "broken", save="0"), photographs, watching)
    monkeypatch.setattr(train_ddpm, "one_step", step)
    on = train_ddpm.train(arguments(tmp_path / "broken"), photographs, watching)
    assert on.step == STEPS
    for (name, one), other in zip(whole.average.state_dict().items(), on.average.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, msg=name)

    shipped = tmp_path / "broken" / "lab-ddpm"
    told = json.loads((shipped / "training.json").read_text())
    assert told["step"] == STEPS and told["sets"] == {"set": 46} and "unfinished" not in told
    found = denoiser(str(shipped))
    assert found.side == SIDE and len(found.schedule) == 1000
    want = on.average.state_dict()
    assert all(torch.equal(v, want[k].half().float()) for k, v in found.network.state_dict().items())
    images = ((watching + 1) / 2 * 255).round() / 255
    assert parse(f"diffpure:model={shipped},t=20,steps=2").run(images[:1]).shape == images[:1].shape
