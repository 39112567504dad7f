"""Meta's .pth files of SAM: names, sizes from shapes, the round trip, and everything that is not such a file."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from redsam.errors import CheckpointError
from redsam.models import load, tiny
from redsam.models.official import from_official, to_official
from redsam.prompts import box, point

# Names and shapes as Meta's own package (segment-anything 1.0) writes them for a model of these sizes: an independent
# source for the mapping.
OFFICIAL_KEYS = Path(__file__).parent / "official_sam_keys.txt"


@pytest.fixture
def state() -> dict[str, Tensor]:
    return to_official(tiny("sam", seed=11).model)


def _written(state: Any, tmp_path: Path, name: str = "sam.pth") -> Path:
    torch.save(state, tmp_path / name)
    return tmp_path / name


def test_names_and_shapes_are_those_of_metas_package(state: dict[str, Tensor]) -> None:
    lines = OFFICIAL_KEYS.read_text().split("\n")
    official = {key: tuple(map(int, shape.split("x"))) for key, _, shape in (x.partition(" ") for x in lines if x)}
    assert {k: tuple(v.shape) for k, v in state.items()} == official


def test_round_trip_gives_identical_outputs(state: dict[str, Tensor], tmp_path: Path) -> None:
    original, loaded = tiny("sam", seed=11), load(_written(state, tmp_path))
    assert loaded.fingerprint() == original.fingerprint() and loaded.family == "sam"
    image = torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    prompts = [[point(10, 20), box(5, 5, 40, 30)]]
    for multimask in (True, False):
        one, two = (s.decode(s.encode(image), prompts, multimask=multimask) for s in (original, loaded))
        assert torch.equal(one.low_res, two.low_res) and torch.equal(one.iou, two.iou)


def test_every_weight_counts(state: dict[str, Tensor]) -> None:
    """A mapping that crossed two weights of one shape would give another state; each tensor here is unique."""
    marked = {k: torch.full_like(v, float(i)) for i, (k, v) in enumerate(sorted(state.items()))}
    again = to_official(from_official(marked))
    assert all(torch.equal(again[k], v) for k, v in marked.items())


@pytest.mark.parametrize(
    ("name", "width", "depth", "heads", "blocks"),
    [("b", 768, 12, 12, [2, 5, 8, 11]), ("l", 1024, 24, 16, [5, 11, 17, 23]), ("h", 1280, 32, 16, [7, 15, 23, 31])],
)
def test_published_sizes_are_told_from_shapes(name: str, width: int, depth: int, heads: int, blocks: list[int]) -> None:
    from transformers import SamConfig, SamModel

    from redsam.models.official import sizes

    vision = {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "global_attn_indexes": blocks,
    }
    with torch.device("meta"):
        model = SamModel(SamConfig(vision_config=vision))
    found = sizes(to_official(model), name)
    assert {k: found["vision_config"][k] for k in vision} == vision
    assert found["vision_config"]["window_size"] == 14 and found["vision_config"]["image_size"] == 1024
    assert found["mask_decoder_config"]["num_attention_heads"] == 8


@pytest.mark.parametrize("wrapper", ["model", "state_dict"])
def test_training_wrappers_and_prefixes_are_taken_off(state: dict[str, Tensor], tmp_path: Path, wrapper: str) -> None:
    prefixed = {f"module.{k}": v for k, v in state.items()}
    loaded = load(_written({wrapper: prefixed, "epoch": 3}, tmp_path))
    assert loaded.fingerprint() == tiny("sam", seed=11).fingerprint()


def test_missing_unknown_and_misshaped_keys_are_named(state: dict[str, Tensor], tmp_path: Path) -> None:
    key = "mask_decoder.transformer.layers.1.cross_attn_image_to_token.k_proj.weight"
    with pytest.raises(CheckpointError, match=f"lacks '{key}'"):
        load(_written({k: v for k, v in state.items() if k != key}, tmp_path))
    with pytest.raises(CheckpointError, match="unknown weight 'adapter.weight'"):
        load(_written({**state, "adapter.weight": torch.zeros(3)}, tmp_path))
    with pytest.raises(CheckpointError, match=f"'{key}' is"):
        load(_written({**state, key: torch.zeros(2, 2)}, tmp_path))
    with pytest.raises(CheckpointError, match="lacks 'image_encoder.patch_embed.proj.weight'"):
        load(_written({"layer.weight": torch.zeros(2)}, tmp_path))
    with pytest.raises(CheckpointError, match="shapes are not those of a SAM"):
        load(_written({**state, "image_encoder.pos_embed": torch.zeros(4)}, tmp_path))


def test_nan_weights_are_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    state["mask_decoder.iou_token.weight"][0, 3] = float("nan")
    with pytest.raises(CheckpointError, match="mask_decoder.iou_token.weight.*not finite"):
        load(_written(state, tmp_path))


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('code of a pickle ran')",)


@pytest.mark.parametrize("how", ["torch", "plain"])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, how: str) -> None:
    path = tmp_path / "evil.pth"
    if how == "torch":
        torch.save({"weight": torch.zeros(2), "extra": _Bomb()}, path)
    else:
        path.write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(CheckpointError, match="evil.pth") as caught:
        load(path)
    assert "\n" not in str(caught.value) and "never run" in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"hello, I am a text\n", b"\x89PNG\r\n\x1a\n" + bytes(60), b"PK\x03\x04" + bytes(40)]
)
def test_other_files_named_pth_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="notes.pth") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_tensors_without_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no state dict"):
        load(_written([torch.zeros(3)], tmp_path))
