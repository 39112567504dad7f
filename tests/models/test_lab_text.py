"""lab-text: any name can be spelled, SAM's weights start it, absent things give an empty mask, detections are parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from redsam.errors import CheckpointError
from redsam.models import lab_names, load, tiny
from redsam.models.lab_text import LabTextSegmenter
from redsam.models.lab_text_net import ngrams
from redsam.prompts import text


def photo(height: int = 40, width: int = 56) -> Tensor:
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(0)) / 255.0


@given(st.text(max_size=60))
def test_every_name_can_be_spelled(name: str) -> None:
    rows = ngrams(name, 64)
    assert rows and all(0 <= r < 64 for r in rows)
    if name.isascii():
        assert rows == ngrams(name.upper(), 64)


def test_spelling_is_stable_and_forgives_articles_and_case() -> None:
    assert ngrams("cat", 8192) == ngrams("the Cat ", 8192) == ngrams("A cat.", 8192)
    assert ngrams("cat", 8192) != ngrams("cats", 8192)
    shared = len(set(ngrams("motorbike", 8192)) & set(ngrams("motorbikes", 8192)))
    assert (
        shared
        > 0.7 * len(set(ngrams("motorbike", 8192)))
        > 3 * len(set(ngrams("motorbike", 8192)) & set(ngrams("sheep", 8192)))
    )
    assert ngrams("<", 2**31)[0] == ngrams("", 2**31)[0]  # nothing left to spell is one and the same text


class Told(LabTextSegmenter):
    """Answers as told: mask logits hxw, presence logit."""

    def tell(self, mask: Tensor, presence: float) -> Told:
        self.net = Answers(self.net, mask, presence)
        return self


class Answers:
    def __init__(self, net: Any, mask: Tensor, presence: float) -> None:
        self._net, self.mask, self.presence = net, mask, presence

    def __getattr__(self, name: str) -> Any:
        return getattr(self._net, name)

    def decode(self, features: Tensor, texts: Any) -> tuple[Tensor, Tensor, Tensor]:
        count = len(features)
        return self.mask.expand(count, 1, -1, -1), torch.full((count, 1), 0.8), torch.full((count, 1), self.presence)


def told(mask: Tensor, presence: float) -> Told:
    return Told(tiny("lab-text").model, name="told").tell(mask, presence)


def test_presence_decides_whether_there_is_a_mask() -> None:
    mask = torch.full((32, 32), -8.0)
    mask[4:12, 4:12] = 8.0
    here, gone = told(mask, 3.0), told(mask, -3.0)
    answer = here.predict(photo(64, 64)[None], [[text("dog")]])[0]
    assert bool(answer.masks[0, 12, 12]) and not bool(answer.masks[0, 50, 50])
    assert float(answer.iou[0]) == pytest.approx(0.8 * torch.tensor(3.0).sigmoid().item(), abs=1e-4)
    assert not gone.predict(photo(64, 64)[None], [[text("dog")]])[0].masks.any()
    assert gone.detect(photo(64, 64), "dog") == []


def test_detections_are_the_connected_parts() -> None:
    mask = torch.full((32, 32), -20.0)
    mask[4:12, 4:12] = 20.0
    mask[20:28, 16:30] = 3.0
    found = told(mask, 9.0).detect(photo(64, 64), "dog")
    assert [tuple(round(v / 4) for v in d.box) for d in found] == [(2, 2, 6, 6), (8, 10, 15, 14)]
    assert found[0].score > found[1].score > 0.5


def test_many_texts_are_answered_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One encoding, several texts a call, also where they do not fit into one; the presences of a random model vary."""
    model = tiny("lab-text", seed=1)
    monkeypatch.setattr("redsam.models.lab_text.TOGETHER", 3)
    monkeypatch.setattr(type(model), "threshold", 0.2)
    names = ["dog", "cat", "Ann Roe", "a traffic light", "sky", "Bo Tan", "person"]
    many = model.detect_all(photo(64, 64), names)  # type: ignore[attr-defined]
    alone = [model.detect(photo(64, 64), name) for name in names]  # type: ignore[attr-defined]
    assert any(many) and [[d.box for d in found] for found in many] == [[d.box for d in found] for found in alone]
    for one, other in zip(sum(many, []), sum(alone, []), strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-5)
    assert model.detect_all(photo(64, 64), []) == []  # type: ignore[attr-defined]


def test_it_loads_as_soon_as_weights_lie_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = tiny("lab-text", seed=2)
    net: Any = original.model
    net.half().save_pretrained(tmp_path / "lab-text")
    monkeypatch.setattr("redsam.models.lab.WEIGHTS", tmp_path)
    loaded = load("lab-text")
    assert lab_names() == ["lab-text"] and lab_names(clicks=True) == []
    assert loaded.family == "lab-text" and loaded.dtype == torch.float32 and loaded.name == "lab-text"
    torch.testing.assert_close(
        loaded.predict(photo()[None], [[text("dog")]])[0].logits,
        LabTextSegmenter(net.float(), name="x").predict(photo()[None], [[text("dog")]])[0].logits,
    )


@pytest.mark.parametrize("damage", ["weights", "config", "shape"])
def test_a_broken_folder_is_one_line(tmp_path: Path, damage: str) -> None:
    net: Any = tiny("lab-text").model
    net.save_pretrained(tmp_path)
    file = tmp_path / ("config.json" if damage == "config" else "model.safetensors")
    if damage == "shape":
        other = tiny("lab-text", image_size=96).model
        other.save_pretrained(tmp_path / "other")
        file.write_bytes((tmp_path / "other" / "model.safetensors").read_bytes())
    else:
        file.write_text('{"model_type": "redsam-lab-text", "nonsense": 1}')
    with pytest.raises(CheckpointError, match="cannot be loaded") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif("lab-text" not in lab_names(), reason="lab-text is not bundled")
def test_the_bundled_model_answers() -> None:
    found = load("lab-text").predict(photo(200, 300)[None], [[text("dog"), text("a zebra")]])[0]
    assert found.masks.shape == (2, 200, 300)
