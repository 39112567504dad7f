"""SAM 3 by text against transformers' own forward and post-processing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from redsam.errors import CheckpointError, InputError
from redsam.models import load, tiny
from redsam.models.sam3_text import Sam3Text
from redsam.prompts import text


@pytest.fixture
def model() -> Sam3Text:
    made = tiny("sam3", seed=1)
    assert isinstance(made, Sam3Text)
    return made


def photo(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(0)) / 255.0


@pytest.mark.parametrize("name", ["dog", "two red cats"])
def test_equals_the_official_forward_and_instances(model: Sam3Text, name: str) -> None:
    """All queries of `Sam3Model.forward` on the same pixels, and the union of what its processor keeps."""
    net: Any = model.net
    image = photo(40, 56)
    words = net.tokenizer(name, return_tensors="pt", padding="max_length", max_length=32)
    with torch.no_grad():
        out = net(
            pixel_values=model.frame(40, 56).fit_exact((image[None] * 255).round().byte()),
            input_ids=words["input_ids"],
            attention_mask=words["attention_mask"],
        )
        masks, boxes, scores = model._ask(model.encode(image[None], exact=True), [0], [name])
    torch.testing.assert_close(masks, out.pred_masks, atol=1e-5, rtol=0)
    torch.testing.assert_close(boxes, out.pred_boxes, atol=1e-5, rtol=0)
    official = (out.pred_logits.sigmoid() * out.presence_logits.sigmoid())[0]
    torch.testing.assert_close(scores[0], official, atol=1e-5, rtol=0)
    model.threshold = float(official.median())  # so that some are kept, whatever random weights say
    kept = official > model.threshold
    probability = F.interpolate(out.pred_masks[0, kept][None], (40, 56), mode="bilinear", align_corners=False)[0]
    wanted = (probability > 0).any(0)
    ours = model.predict(image[None], [[text(name)]])[0]
    assert int(kept.sum()) > 1
    assert float((ours.masks[0] == wanted).float().mean()) > 0.97  # resized before and after the maximum
    torch.testing.assert_close(ours.iou[0], official.max(), atol=1e-5, rtol=0)
    assert len(model.detect(image, name)) == int(kept.sum())


def test_gradients_run_through_the_box_refinement(model: Sam3Text) -> None:
    image = photo(40, 56)[None].requires_grad_()
    boxes = model._ask(model.encode(image), [0], ["dog"])[1]
    (gradient,) = torch.autograd.grad(boxes.sum(), image)
    assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0


def test_the_prefix_takes_the_concept_detector(model: Sam3Text, tmp_path: Path) -> None:
    model.model.save_pretrained(tmp_path)
    bare = load(f"text:{tmp_path}")
    assert isinstance(bare, Sam3Text)
    with pytest.raises(InputError, match="tokenizer"):
        bare.predict(photo(20, 30)[None], [[text("dog")]])
    net: Any = model.net
    net.tokenizer.save_pretrained(tmp_path)
    whole = load(f"text:{tmp_path}", name="mine")
    torch.testing.assert_close(
        whole.predict(photo(20, 30)[None], [[text("dog")]])[0].logits,
        model.predict(photo(20, 30)[None], [[text("dog")]])[0].logits,
    )
    assert whole.name == "mine"


def test_the_prefix_refuses_a_model_of_clicks(tmp_path: Path) -> None:
    tiny("sam").model.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="takes no text"):
        load(f"text:{tmp_path}")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        (tmp_path / "empty").mkdir()
        load(f"text:{tmp_path / 'empty'}")
