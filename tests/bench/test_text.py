"""A whole run with text prompts: records name the text, models that cannot read it are refused before anything runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from redsam.bench import audit
from redsam.bench.presets import POINT, TEXT
from redsam.data import open_data
from redsam.errors import InputError
from redsam.models import tiny

SHORT = replace(TEXT, trials=TEXT.trials[:1])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photographs as COCO would describe them: two regions of one class and one of another."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(2):
        Image.fromarray(rng.integers(0, 255, (40, 56, 3), dtype=np.uint8)).save(tmp_path / f"p{i}.png")
        images.append({"id": i, "file_name": f"p{i}.png", "height": 40, "width": 56})
        for k, (x, name) in enumerate(((2, 1), (20, 2), (38, 1))):
            square = [x, 4, x + 14, 4, x + 14, 30, x, 30]
            annotations.append({"id": 10 * i + k, "image_id": i, "category_id": name, "segmentation": [square]})
    table = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cup"}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(table))
    return tmp_path


@pytest.mark.parametrize("frozen", [False, True])
def test_a_run_asks_by_name(photos: Path, tmp_path: Path, kit: Any, frozen: bool) -> None:
    model: Any = tiny("grounded-owlv2", seed=1)
    model.frozen_boxes = frozen
    summary = audit(model, open_data(photos), preset=SHORT, out=tmp_path / "run")
    records = list(kit.records(tmp_path / "run").values())
    assert len(records) == 4 and {r["status"] for r in records} == {"ok"}
    for record in records:
        assert [p["kind"] for p in record["prompts"]] == ["text", "text"]
        assert [p["geometry"]["text"] for p in record["prompts"]] == ["dog", "cup"]
    attacked = [r for r in records if r["linf"] > 0]
    assert all(("found" in p["geometry"]) == frozen for r in attacked for p in r["prompts"])
    assert summary


def test_models_and_protocols_that_do_not_fit_are_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="takes no text"):
        audit(tiny("sam"), open_data(photos), preset=SHORT, out=tmp_path / "a")
    with pytest.raises(InputError, match="texts only"):
        audit(tiny("lab-text"), open_data(photos), preset=replace(SHORT, protocols=(POINT,)), out=tmp_path / "b")
