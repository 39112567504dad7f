"""SAM-Adapter: what the prompt generator hears, where it starts, and that a folder is only numbers."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch

from redsam.errors import CheckpointError, InputError
from redsam.models import load, tiny
from redsam.models.sam_adapter import Adapter, adapt, high_frequencies
from redsam.prompts import box, point


def test_low_frequencies_are_cut_and_high_ones_kept() -> None:
    """A constant is gone, a checkerboard of pixels stays; a wave stays if it is faster than the square."""
    side = 32
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    board = ((rows + columns) % 2).double() * 2 - 1
    assert torch.allclose(high_frequencies((0.7 + board)[None], 0.25), board.abs()[None])
    half = int((side * side * 0.25) ** 0.5 // 2)
    assert half == 8
    for frequency, kept in ((half - 1, False), (half + 1, True)):
        wave = torch.cos(2 * torch.pi * frequency * columns.double() / side)
        found = high_frequencies(wave[None], 0.25)
        assert torch.allclose(found, wave.abs()[None] if kept else torch.zeros_like(found), atol=1e-9)


def test_an_adapter_starts_as_the_model_it_adapts() -> None:
    plain = tiny("sam", seed=3)
    image = torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    before = plain.encode(image).features
    adapted = load(adapt(plain.model, Adapter()), name="adapted")
    assert adapted.family == "sam-adapter" and torch.equal(adapted.encode(image).features, before)
    generator = adapted.model.vision_encoder.prompt_generator  # type: ignore[union-attr]
    torch.nn.init.normal_(generator.up.weight)  # type: ignore[union-attr, arg-type]
    assert not torch.equal(adapted.encode(image).features, before)


def test_without_prompts_it_answers_all_alike_with_one_mask() -> None:
    model = load(adapt(tiny("sam").model, Adapter(prompted=False)))
    image = torch.zeros(1, 3, 40, 56)
    found = model.decode(model.encode(image), [[point(3, 3), box(1, 1, 30, 30)]])
    assert found.low_res.shape[:2] == (2, 1) and torch.equal(found.low_res[0], found.low_res[1])


def test_only_a_sam_is_adapted() -> None:
    with pytest.raises(InputError, match="adapts a SAM"):
        adapt(tiny("sam2").model, Adapter())
    with pytest.raises(InputError, match="adapts a SAM"):
        adapt(tiny("sam-adapter").model, Adapter())
    with pytest.raises(InputError, match="Published: scale 32"):
        Adapter(share=1.0)


def test_a_folder_without_safetensors_is_refused_and_nothing_in_it_is_run(tmp_path: Path) -> None:
    tiny("sam-adapter").model.save_pretrained(tmp_path)  # type: ignore[operator]
    weights = tmp_path / "model.safetensors"
    marker = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (marker,)

    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    kept = weights.read_bytes()
    weights.unlink()
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load(tmp_path)
    weights.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load(tmp_path)
    assert not marker.exists()
    weights.write_bytes(kept)
    told = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**told, "adapter": {"scale": 8}}))
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load(tmp_path)
