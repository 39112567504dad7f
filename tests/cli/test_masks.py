"""`redsam masks`: PNGs and a list of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from redsam import models
from redsam.models.automatic import MaskSet
from tests.cli.conftest import Ran


def test_masks_are_written_and_listed(
    redsam: Callable[..., Ran], tiny_folder: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = torch.zeros(2, 256, 384, dtype=torch.bool)
    masks[0, 10:20, 10:30] = True
    masks[1, :, :] = True
    asked = []

    def known(segmenter: object, image: torch.Tensor, *, points_per_side: int) -> MaskSet:  # a random model finds none
        asked.append((tuple(image.shape), points_per_side))
        two = torch.tensor([0.9, 0.8])
        return MaskSet(masks=masks, boxes=torch.zeros(2, 4), iou=two, stability=two, points=torch.ones(2, 2))

    monkeypatch.setattr(models, "automatic_masks", known)
    ran = redsam("masks", photo, "--model", tiny_folder, "--points-per-side", 4, "--out", tmp_path, "--json")
    assert ran.code == 0, ran.err
    assert asked == [((3, 256, 384), 4)]
    rows = json.loads(ran.out)
    assert [row["area"] for row in rows] == [200, 256 * 384]
    assert rows == json.loads((tmp_path / "masks.json").read_text())
    assert np.array_equal(np.asarray(Image.open(tmp_path / rows[0]["file"])) > 0, masks[0].numpy())


def test_a_random_model_finds_nothing(
    redsam: Callable[..., Ran], tiny_folder: Path, photo: Path, tmp_path: Path
) -> None:
    ran = redsam("masks", photo, "--model", tiny_folder, "--points-per-side", 2, "--out", tmp_path)
    assert ran.code == 0, ran.err
    assert ran.out == f"0 masks in {tmp_path}\n"
