"""Pixels: run-length codes against pycocotools, the amplified difference, and the figure of one attack."""

from __future__ import annotations

from pathlib import Path

import fake
import numpy as np
import pytest
from PIL import Image

from redsam.errors import InputError
from redsam.report import attack_figure
from redsam.report.pictures import amplified, decode_rle, mask_uri


@pytest.mark.parametrize("seed", range(6))
def test_rle_agrees_with_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((37, 53)) < rng.choice([0.0, 0.02, 0.5, 1.0])
    assert np.array_equal(decode_rle(fake.rle(mask)), mask)
    big = np.kron(mask[:9, :9], np.ones((70, 90))).astype(bool)  # long runs need several characters
    assert np.array_equal(decode_rle(fake.rle(big)), big)


def test_uncompressed_rle_runs_down_columns() -> None:
    assert decode_rle({"size": [2, 2], "counts": [1, 2, 1]}).tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize("counts", [[1, 2], "zz", [-1, 5]])
def test_rle_that_does_not_fit(counts: object) -> None:
    with pytest.raises(ValueError):
        decode_rle({"size": [2, 2], "counts": counts})


def test_amplified_clips_nothing_and_is_grey_without_change() -> None:
    clean = np.full((4, 4, 3), 100, dtype=np.uint8)
    adv = clean.copy()
    adv[0, 0] = (108, 92, 100)
    diff, factor = amplified(clean, adv)
    assert factor == 15 and diff[0, 0].tolist() == [248, 8, 128] and diff[1, 1].tolist() == [128] * 3


def test_empty_mask_draws_nothing() -> None:
    assert mask_uri(np.zeros((8, 9), dtype=bool)).startswith("data:image/webp")


def test_figure(tmp_path: Path) -> None:
    _, image, masks = fake.scenes(1)[0]
    adv = np.clip(image.astype(int) + 4, 0, 255).astype(np.uint8)
    path = attack_figure(image.transpose(2, 0, 1), adv, masks, ~masks, tmp_path / "a.png", "pgd on $lab_b$ <x>")
    with Image.open(path) as drawn:
        assert drawn.width > 800 and len(set(drawn.convert("L").resize((64, 64)).tobytes())) > 20
    with pytest.raises(InputError, match="Figure"):
        attack_figure(image, adv[:-1], masks, masks, tmp_path / "b.png", "")
    with pytest.raises(InputError, match="cannot be written"):
        attack_figure(image, adv, masks, masks, tmp_path / "none" / "b.png", "")
