"""Files that are unusual but right: 16-bit, palette, CMYK, rotated by EXIF; through the command, as a person would."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Ran


@pytest.fixture
def attacked(redsam: Callable[..., Ran], tiny_folder: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`attacked(path)`: attack a file with FGSM at one grey level; returns result.json and the adversarial pixels."""

    def run(image: Path, *more: object) -> dict[str, Any]:
        out = tmp_path / f"out-{image.stem}"
        ran = redsam(
            "attack", image, "--model", tiny_folder, "--attack=fgsm", "--eps=1/255", "--point=5,30", "--json",
            "--out", out, *more,
        )  # fmt: skip
        assert ran.code == 0, ran.err
        result: dict[str, Any] = json.loads(ran.out)
        assert result == json.loads((out / "result.json").read_text())
        pixels = np.asarray(Image.open(out / "adversarial.png")).astype(int)
        return {"result": result, "pixels": pixels, "out": out}

    return run


def gradient(width: int = 40, height: int = 48) -> np.ndarray[Any, Any]:
    """HxWx3 uint8: red grows to the right, green downwards."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 5, y * 5, np.full_like(x, 90)], axis=-1).astype(np.uint8)


def close(found: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any], levels: int = 1) -> None:
    assert found.shape == wanted.shape
    assert np.abs(found - wanted.astype(int)).max() <= levels


def test_what_an_attack_writes(attacked: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    Image.fromarray(gradient()).save(tmp_path / "plain.png")
    got = attacked(tmp_path / "plain.png", "--box", "4,4,30,40")
    close(got["pixels"], gradient())
    result = got["result"]
    assert result["budget"]["linf_levels"] == 1
    assert result["size"] == [48, 40]
    assert [row["prompt"]["kind"] for row in result["prompts"]] == ["point", "box"]
    assert all(0 <= row["iou_adv_clean"] <= 1 for row in result["prompts"])
    names = {"adversarial.png", "figure.png", "result.json"}
    names |= {f"{side}_mask_{i}.png" for side in ("clean", "adversarial") for i in (0, 1)}
    assert {p.name for p in got["out"].iterdir()} == names
    masks = [np.asarray(Image.open(got["out"] / f"{side}_mask_1.png")) > 0 for side in ("clean", "adversarial")]
    union = (masks[0] | masks[1]).sum()
    overlap = (masks[0] & masks[1]).sum() / union if union else 1.0
    assert result["prompts"][1]["iou_adv_clean"] == pytest.approx(overlap)


def test_the_same_seed_gives_the_same_file(attacked: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    Image.fromarray(gradient()).save(tmp_path / "a.png")
    Image.fromarray(gradient()).save(tmp_path / "b.png")
    Image.fromarray(gradient()).save(tmp_path / "c.png")
    pgd = ("--attack=pgd", "--steps=2", "--eps=4/255")
    first, again = attacked(tmp_path / "a.png", *pgd), attacked(tmp_path / "b.png", *pgd)
    other = attacked(tmp_path / "c.png", *pgd, "--seed=1")
    assert np.array_equal(first["pixels"], again["pixels"])
    assert not np.array_equal(first["pixels"], other["pixels"])


def test_16_bit_grey(attacked: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    levels = (gradient()[..., 0].astype(np.uint16)) * 257
    Image.fromarray(levels).save(tmp_path / "deep.png")
    close(attacked(tmp_path / "deep.png")["pixels"], np.repeat(gradient()[..., :1], 3, axis=-1))


def test_palette(attacked: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    indexed = Image.fromarray(gradient() // 64 * 64).quantize(64)
    indexed.save(tmp_path / "palette.png")
    close(attacked(tmp_path / "palette.png")["pixels"], np.asarray(indexed.convert("RGB")))


def test_cmyk_jpeg(attacked: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    flat = np.zeros((48, 40, 3), dtype=np.uint8) + np.array([200, 60, 30], dtype=np.uint8)
    Image.fromarray(flat).convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    close(attacked(tmp_path / "print.jpg")["pixels"], flat, levels=5)


def test_exif_rotation(attacked: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    upright = Image.fromarray(gradient())
    exif = Image.Exif()
    exif[0x0112] = 6  # a viewer turns it by 90 degrees clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "phone.png", exif=exif)
    got = attacked(tmp_path / "phone.png")
    assert got["result"]["size"] == [48, 40]
    close(got["pixels"], gradient())


def test_a_mask_prompt(attacked: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    Image.fromarray(gradient()).save(tmp_path / "plain.png")
    prior = np.zeros((48, 40), dtype=np.uint8)
    prior[10:20, 5:15] = 255
    Image.fromarray(prior).save(tmp_path / "prior.png")
    rows = attacked(tmp_path / "plain.png", "--mask", tmp_path / "prior.png")["result"]["prompts"]
    assert rows[1]["prompt"] == {"kind": "mask", "mask_area": 100}
