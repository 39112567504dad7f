"""`load`: folders, modules, names, device and dtype, and one-line errors for everything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from redsam.errors import CheckpointError, InputError, MissingExtra, UnknownName
from redsam.models import Segmenter, lab_names, load, tiny
from redsam.models.hf import TransformersSegmenter


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny("sam", seed=4).model.save_pretrained(tmp_path / "net")
    return tmp_path / "net"


def test_folder_of_every_family_round_trips(family: str, tmp_path: Path) -> None:
    original = tiny(family, seed=4)
    original.model.save_pretrained(tmp_path)
    loaded = load(tmp_path, name="mine")
    assert (loaded.family, loaded.name) == (family, "mine")
    assert loaded.fingerprint() == original.fingerprint()


def test_half_precision_file_loads_as_float32_unless_told(tmp_path: Path) -> None:
    model = tiny("sam", seed=4).model.half()
    model.save_pretrained(tmp_path)
    assert load(tmp_path).dtype == torch.float32
    assert load(tmp_path, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_position_encoding_stays_exact_in_half_precision(folder: Path) -> None:
    half, full = load(folder, dtype=torch.bfloat16), load(folder)
    assert isinstance(half, TransformersSegmenter) and isinstance(full, TransformersSegmenter)
    basis = half.net.shared_image_embedding.positional_embedding
    assert basis.dtype == torch.float32 and torch.equal(basis, full.net.shared_image_embedding.positional_embedding)


def test_processor_settings_of_a_folder_are_used(folder: Path) -> None:
    settings = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1.0, 1.0, 1.0]}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    frame = load(folder).frame(10, 10)
    assert frame.mean == (0.1, 0.2, 0.3) and frame.std == (1.0, 1.0, 1.0)


def test_module_in_memory_keeps_its_type(family: str) -> None:
    original = tiny(family, seed=4)
    loaded = load(original.model)
    assert loaded.family == family and loaded.model is original.model
    assert load(tiny("sam").model.double()).dtype == torch.float64


def test_unknown_module_says_how_to_wrap_it() -> None:
    with pytest.raises(InputError, match="redsam.models.wrap"):
        load(nn.Linear(2, 2))


def test_names_suggest_the_nearest() -> None:
    with pytest.raises(UnknownName, match="facebook/sam-vit-base"):
        load("sam-vit-bas")
    with pytest.raises(UnknownName, match="hub id such as"):
        load("qqqqqqqq")
    if lab_names():
        with pytest.raises(UnknownName, match=lab_names()[0]):
            load(lab_names()[0] + "x")


def test_hub_out_of_reach_is_one_line() -> None:
    with pytest.raises(CheckpointError, match="hub gave no answer") as caught:
        load("nobody/no-such-model-at-all")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["./nothing", "/no/such/folder", "missing.pth", Path("also-missing")])
def test_missing_paths_are_named(spec: str | Path) -> None:
    with pytest.raises(InputError, match="There is no file or folder"):
        load(spec)


def test_folder_without_config(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no config.json"):
        load(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_folder_with_broken_config(folder: Path, text: str) -> None:
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match="config.json"):
        load(folder)


def test_folder_of_another_kind_of_model(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="'bert'"):
        load(folder)


def test_truncated_and_missing_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load(folder)
    weights.unlink()
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load(folder)


def test_folder_that_lacks_or_misshapes_a_weight(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    key = "mask_decoder.iou_token.weight"
    save_file({k: v for k, v in state.items() if k != key}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=f"lacks the weight '{key}'"):
        load(folder)
    save_file({**state, key: torch.zeros(1, 7)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=f"another shape for the weight '{key}'"):
        load(folder)


def test_nan_in_a_folder_is_refused(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    state["vision_encoder.layers.0.attn.qkv.bias"][5] = float("inf")
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"vision_encoder\.layers\.0\.attn\.qkv\.bias.*not finite"):
        load(folder)


@pytest.mark.parametrize("name", lab_names() or ["none"])
def test_lab_models_load(name: str) -> None:
    if name not in lab_names():
        pytest.skip("no model is bundled")
    model = load(name)
    assert isinstance(model, Segmenter) and model.dtype == torch.float32 and model.name == name


def test_edgetam_folder_without_timm(tmp_path: Path) -> None:
    import importlib.util

    if importlib.util.find_spec("timm") is not None:
        pytest.skip("timm is installed")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "edgetam"}))
    with pytest.raises(MissingExtra, match="timm"):
        load(tmp_path)
