"""The recipe of lab-text on a planted set: packing joins objects, names are true, steps teach, runs resume."""

from __future__ import annotations

import argparse
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import names
import numpy as np
import pack_text
import pytest
import text as recipe
import torch
import train_text
from PIL import Image
from safetensors.torch import load_file

from redsam.data.known import CCP, VOC
from redsam.models import load


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Two VOC photographs, one with the void border, and one COCO photograph cut into three object files."""
    root = tmp_path / "pool"
    for group in ("voc", "camvid", "ccp", "coco_mval"):
        (root / group).mkdir(parents=True)
    for i in range(2):
        values = np.zeros((60, 80), np.uint8)
        values[10:40, 10 + i : 40] = 12
        values[50:, :] = 255
        Image.fromarray(np.stack([values * 20] * 3, -1)).save(root / "voc" / f"v{i}.webp", lossless=True)
        Image.fromarray(values).save(root / "voc" / f"v{i}.png")
    for k, name in enumerate(("sports ball00", "sports ball01", "dog00")):
        values = np.zeros((60, 80), np.uint8)
        values[5 + 15 * k : 15 + 15 * k, 10:30] = 1
        Image.new("RGB", (80, 60)).save(root / "coco_mval" / f"{name}_000000000042.webp")
        Image.fromarray(values).save(root / "coco_mval" / f"{name}_000000000042.png")
    return root


def test_packing_joins_objects_of_one_photograph(pool: Path, tmp_path: Path) -> None:
    assert pack_text.pack(pool, tmp_path / "text.zip", workers=1) == 3
    with zipfile.ZipFile(tmp_path / "text.zip") as archive:
        index = json.loads(archive.read("index.json"))
        maps = [np.asarray(Image.open(io.BytesIO(archive.read(f"{i:05d}.png")))) for i in range(3)]
    assert [item["complete"] for item in index["items"]] == [True, True, False]
    named = [{index["names"][v - 1] for v in np.unique(m) if v not in (0, 255)} for m in maps]
    assert named == [{"dog"}, {"dog"}, {"sports ball", "dog"}]
    assert 255 in maps[0] and max(maps[0].shape) == 240
    assert (maps[2] > 0).mean() == pytest.approx(3 * 10 * 20 / (60 * 80), abs=0.01)


def test_names_are_those_of_the_data_room() -> None:
    assert list(names.CCP) == CCP.split()
    assert [n.replace(" ", "") for n in names.VOC] == VOC.split()
    assert names.same("aeroplane", "airplane") and names.same("hot dog", "dog") and not names.same("cat", "dog")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Sixteen photographs: a white square that is a cat, or a black one that is a dog, on grey."""
    path, index = tmp_path / "text.zip", []
    with zipfile.ZipFile(path, "w") as out:
        for i in range(16):
            labels = np.zeros((96, 96), np.uint8)
            labels[10 + 2 * i : 60 + 2 * i, 30:80] = 1 + i % 2
            pixels = np.choose(labels, (128, 255, 0)).astype(np.uint8)
            for name, kind, array in ((f"{i:05d}.webp", "WEBP", pixels), (f"{i:05d}.png", "PNG", labels)):
                blob = io.BytesIO()
                Image.fromarray(array).convert("RGB" if kind == "WEBP" else "L").save(blob, kind)
                out.writestr(name, blob.getvalue())
            index.append({"set": "voc", "size": [96, 96], "complete": True, "held_out": i == 7})
        out.writestr("index.json", json.dumps({"names": ["cat", "dog"], "items": index}))
    return path


def test_a_draw_asks_for_what_is_there_and_what_is_not(archive: Path) -> None:
    named = recipe.load_named(archive)
    batch = recipe.draw(named, count=8, side=48, gen=torch.Generator().manual_seed(1), augment=False)
    assert all(len(row) == recipe.QUERIES for row in batch.texts)
    for row in range(8):
        for k, name in enumerate(batch.texts[row]):
            mask, live = batch.masks[row, k], batch.valid[row, 0] > 0
            bright = batch.pixels[row].mean(0)
            if mask.any():
                inside, outside = bright[mask].mean(), bright[live & ~mask].mean()
                assert name in ("cat", "dog") and (inside > outside) == (name == "cat")
            else:
                assert name in names.VOC
    again = recipe.draw(named, count=8, side=48, gen=torch.Generator().manual_seed(1), augment=False)
    assert again.texts == batch.texts and torch.equal(again.pixels, batch.pixels)


def test_other_words_are_known_ones() -> None:
    gen = torch.Generator().manual_seed(0)
    seen = {recipe.spoken("sofa", gen) for _ in range(200)}
    assert seen == {"sofa", "couch", "sofas", "couchs"}


def test_it_starts_from_the_lab_encoder() -> None:
    model = recipe.build(train_text.SOURCE)
    source = load_file(train_text.SOURCE / "model.safetensors")
    state = model.state_dict()
    assert torch.equal(
        state["vision_encoder.layers.0.attn.qkv.weight"], source["vision_encoder.layers.0.attn.qkv.weight"].float()
    )
    assert torch.equal(state["no_mask.weight"], source["prompt_encoder.no_mask_embed.weight"].float())
    fresh = recipe.build(None)
    assert not torch.equal(fresh.state_dict()["no_mask.weight"], state["no_mask.weight"])


def arguments(archive: Path, out: Path, steps: int) -> argparse.Namespace:
    words = ["--data", str(archive), "--out", str(out), "--steps", str(steps), "--minutes", "10", "--device", "cpu"]
    return train_text.parse([*words, "--batch", "4", "--threads", "1"])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe at 64 pixels."""
    from redsam.models.sam import tiny_vit_config

    config = tiny_vit_config(64)
    for module in (recipe, train_text):
        monkeypatch.setattr(module, "RECIPE", recipe.Recipe(name="lab-text", family="lab-text", config=config, lr=3e-3))
    monkeypatch.setattr(train_text, "SOURCE", None)


def test_steps_teach_and_a_run_goes_on_where_it_was(archive: Path, tmp_path: Path, small: None) -> None:
    named, watching = recipe.load_named(archive), recipe.load_named(archive, held_out=True)
    assert (len(named.groups), len(watching.groups)) == (15, 1)
    args: Any = arguments(archive, tmp_path / "out", 25)
    args.start = None
    train_text.train(train_text.ALONE, args, named, watching)
    now = train_text.prepare(args)
    gen = torch.Generator().manual_seed(9)
    batch = recipe.draw(named, count=8, side=64, gen=gen, augment=False)
    with torch.no_grad():
        after = float(recipe.loss_of(now.model, batch, named)[0])  # type: ignore[arg-type]
        before = float(recipe.loss_of(recipe.build(None), batch, named)[0])
    assert after < 0.85 * before
    args.steps = 27
    train_text.train(train_text.ALONE, args, named, watching)
    on = train_text.prepare(args)
    assert on.step == 27 and [h["step"] for h in on.history] == [25, 27]
    shipped = load(tmp_path / "out" / "lab-text")
    assert shipped.takes_text and shipped.family == "lab-text"
    made = json.loads((tmp_path / "out" / "lab-text" / "training.json").read_text())
    assert made["step"] == 27 and made["names"] == 2
