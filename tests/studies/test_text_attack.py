"""text-attack on random models: every form, numbers over what was found, what cannot run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from redsam.data import open_data
from redsam.errors import InputError
from redsam.models import tiny
from redsam.models.base import Segmenter
from redsam.models.grounded import GroundedSegmenter
from redsam.studies import study
from redsam.studies.tables import MEASURED, PUBLISHED
from redsam.studies.text_attack import line

QUICK = {"steps": 2, "figa_steps": 3}


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photographs in VOC's layout, a cat on each."""
    root = tmp_path_factory.mktemp("text") / "voc"
    root.mkdir()
    rng = np.random.default_rng(3)
    for i in range(2):
        coarse = Image.fromarray(rng.integers(0, 255, size=(6, 8, 3), dtype=np.uint8))
        coarse.resize((72, 60), Image.Resampling.BICUBIC).save(root / f"{i}.webp", lossless=True)
        values = np.zeros((60, 72), np.uint8)
        values[8:50, 10 : 60 + i] = 8
        Image.fromarray(values).save(root / f"{i}.png")
    return root


def seeing(family: str) -> Segmenter:
    """A random model that finds something under any text."""
    model: Any = tiny(family, seed=1)
    if isinstance(model, GroundedSegmenter):
        model.threshold = 1e-6
        return model
    with torch.no_grad():
        model.net.presence_head[-1].bias.fill_(6.0)
    return model


def rows_of(model: Segmenter, data: Path, out: Path, **more: Any) -> list[dict[str, Any]]:
    found = study("text-attack", **{**QUICK, **more}).run(model, open_data(data), out=out)
    assert found.failures == 0 and json.loads((out / "study.json").read_text())["study"]["name"] == "text-attack"
    (table,) = found.tables
    published = [r for r in table.rows if r["origin"] == PUBLISHED]
    assert len(published) == 1 and published[0]["source"]
    return [r for r in table.rows if r["origin"] == MEASURED]


def test_an_end_to_end_model_has_one_form(named: Path, tmp_path: Path) -> None:
    rows = rows_of(seeing("lab-text"), named, tmp_path)
    assert [(r["form"], r["attack"], r["judged"]) for r in rows] == [
        ("end to end", "FGSM*", "end to end"), ("end to end", "FIGA", "end to end"),
    ]  # fmt: skip
    for row in rows:
        assert row["n_images"] == 2 and row["found"] == 2 and row["n_failed"] == 0
        assert all(0 <= row[name] <= 1 for name in ("before", "after", "kept", "reached"))
    star, figa = rows
    assert star["iterations"] <= 2 and figa["iterations"] <= 3
    assert figa["modified pixels"] <= 3 * 0.1 * 60 * 72 + 3 < star["modified pixels"]
    assert 0 < figa["MSE"] < star["MSE"] <= (2 / 255) ** 2


@pytest.mark.parametrize("family", ["grounded-dino", "grounded-owlv2"])
def test_a_detector_has_both_forms_and_frozen_images_are_judged_twice(family: str, named: Path, tmp_path: Path) -> None:
    rows = rows_of(seeing(family), named, tmp_path)
    frozen, through = "boxes frozen", "through the detector"
    assert [(r["form"], r["judged"], r["attack"]) for r in rows] == [
        (frozen, frozen, "FGSM*"), (frozen, frozen, "FIGA"), (frozen, through, "FGSM*"), (frozen, through, "FIGA"),
        (through, through, "FGSM*"), (through, through, "FIGA"),
    ]  # fmt: skip
    assert all(r["n_images"] == 2 and r["found"] == 2 for r in rows)
    assert rows[0]["MSE"] == rows[2]["MSE"] != rows[4]["MSE"]  # shown again, not attacked again
    assert "iterations" not in rows[2] and rows[4]["iterations"] > 0


def test_forms_share_the_networks_and_are_two_models() -> None:
    model = seeing("grounded-dino")
    forms = model.forms()
    assert [f.model is model.model for f in forms.values()] == [True, True]
    assert len({f.fingerprint() for f in forms.values()}) == len({f.name for f in forms.values()}) == 2


def test_numbers_are_over_what_was_found() -> None:
    full = {"size": [1, 2], "counts": "02"}  # both pixels
    empty = {"size": [1, 2], "counts": "2"}
    prompt = {"rle_clean": full, "iou_clean_gt": 0.5, "iou_adv_gt": 0.25, "iou_adv_clean": 0.0}
    missed = {"rle_clean": empty, "iou_clean_gt": 0.0, "iou_adv_gt": 1.0, "iou_adv_clean": 1.0}
    base = {"height": 1, "width": 2, "l0": 1, "l2": 1.0, "steps": 4}
    row = line([{**base, "prompts": [prompt]}, {**base, "steps": 25, "prompts": [missed]}])
    assert (row["n_images"], row["found"], row["before"], row["after"]) == (2, 1, 0.5, 0.25)
    assert (row["kept"], row["reached"], row["iterations"], row["MSE"]) == (0.0, 1.0, 4.0, pytest.approx(1 / 6))
    assert line([{**base, "prompts": [missed]}]) == {"n_images": 1, "found": 0, "origin": MEASURED}


def test_names_can_be_chosen(named: Path, tmp_path: Path) -> None:
    rows = rows_of(seeing("lab-text"), named, tmp_path / "a", names=["cat"], steps=1, figa_steps=1)
    assert [r["n_images"] for r in rows] == [2, 2]
    with pytest.raises(InputError, match="voc names no dog or bird on its images"):
        rows_of(seeing("lab-text"), named, tmp_path / "b", names=["dog", "bird"])


def test_what_cannot_be_asked(named: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="takes no text"):
        study("text-attack").run(tiny("sam"), open_data(named), out=tmp_path / "a")
    bare = tmp_path / "bare"
    bare.mkdir()
    Image.new("RGB", (40, 40)).save(bare / "x.png")
    with pytest.raises(InputError, match="names nothing"):
        study("text-attack").run(tiny("lab-text"), open_data(bare), out=tmp_path / "b")
