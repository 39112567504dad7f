"""Grounded models against the official processors, by hand with one planted box, frozen against adaptive, loading."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from redsam import registry
from redsam.errors import CheckpointError, InputError, UnknownName
from redsam.models import Segmenter, load, tiny
from redsam.models.grounded import GroundedSegmenter, ground
from redsam.models.grounded_dino import shrunk
from redsam.models.tiny_text import tiny_tokenizer
from redsam.prompts import Box, Prompt, box, text
from redsam.threat import Threat
from redsam.types import from_uint8

FAMILIES = ("grounded-dino", "grounded-owlv2")


def photo(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed)) / 255.0


def grounded(family: str, seed: int = 1) -> GroundedSegmenter:
    model = tiny(family, seed=seed)
    assert isinstance(model, GroundedSegmenter)
    return model


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (333, 1000), (1200, 100), (800, 800), (64, 65), (801, 1337)])
def test_size_is_the_official_one(size: tuple[int, int]) -> None:
    from transformers.image_transforms import get_size_with_aspect_ratio

    assert shrunk(size, short=800, long=1333) == tuple(get_size_with_aspect_ratio(size, 800, 1333))


@pytest.mark.parametrize("size", [(40, 56), (90, 33), (130, 150)])
def test_grounding_dino_equals_its_processor_from_pixel_to_box(size: tuple[int, int]) -> None:
    from transformers import GroundingDinoImageProcessorPil, GroundingDinoProcessor

    model: Any = grounded("grounded-dino")
    image = photo(*size)
    array = (image * 255).round().byte().permute(1, 2, 0).numpy()
    pil = GroundingDinoImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 128}, do_pad=False)
    processor = GroundingDinoProcessor(pil, tiny_tokenizer("bert"))
    inputs = processor(images=array, text="a dog.", return_tensors="pt")
    ours = model._pixels(image[None], exact=True)
    assert (ours - inputs["pixel_values"]).abs().max() < 1e-5
    assert (model._pixels(image[None], exact=False) - ours).abs().max() < 0.05
    inputs.pop("pixel_mask", None)
    with torch.no_grad():
        out = model.detector(**inputs)
    official = processor.post_process_grounded_object_detection(
        out, threshold=0.3, text_threshold=0.25, target_sizes=[size]
    )[0]
    found = model._instances(model.encode(image[None], exact=True), 0, "A dog")
    kept = found.scores > 0.3
    order = official["scores"].argsort(descending=True)
    assert int(kept.sum()) == len(order) > 0
    torch.testing.assert_close(found.scores[kept].detach(), official["scores"][order], atol=1e-4, rtol=0)
    torch.testing.assert_close(found.boxes[kept].detach(), official["boxes"][order], atol=1e-2, rtol=0)


@pytest.mark.parametrize("size", [(40, 56), (90, 33), (130, 150), (64, 64)])
def test_owlv2_equals_its_processor_from_pixel_to_box(size: tuple[int, int]) -> None:
    from transformers import Owlv2ImageProcessorPil

    model: Any = grounded("grounded-owlv2")
    image = photo(*size)
    array = (image * 255).round().byte().permute(1, 2, 0).numpy()
    processor = Owlv2ImageProcessorPil(size={"height": 64, "width": 64})
    official = processor(images=array, return_tensors="pt")["pixel_values"]
    ours = model._pixels(image)
    assert (ours - official).abs().max() < 2e-3
    names = tiny_tokenizer("clip")(["dog"], return_tensors="pt", padding="max_length", max_length=32)
    with torch.no_grad():
        words = {key: names[key] for key in ("input_ids", "attention_mask")}
        out = model.detector(pixel_values=official.float(), **words)
    want = processor.post_process_object_detection(out, threshold=0.1, target_sizes=[size])[0]
    found = model._instances(model.encode(image[None], exact=True), 0, "dog")
    order = want["scores"].argsort(descending=True)
    assert len(found.scores) == len(order)
    torch.testing.assert_close(found.scores.detach(), want["scores"][order], atol=1e-3, rtol=0)
    assert (found.boxes.detach().sort(0).values - want["boxes"].sort(0).values).abs().max() < 0.2


def inside(b: Box) -> bool:
    """The 40 x 56 image holds the box: a detector's may reach outside, a box prompt's may not."""
    return b[0] >= 0 and b[1] >= 0 and b[2] <= 56 and b[3] <= 40


class Planted(GroundedSegmenter):
    """Finds what it is told to: boxes as shares of the image, scores."""

    family = "grounded-dino"
    answer: tuple[list[list[float]], list[float]] = ([], [])
    asked = 0

    def _find(self, image: Tensor, what: str, *, exact: bool) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        type(self).asked += 1
        boxes, scores = self.answer
        return torch.tensor(boxes) + image.sum() * 0, torch.tensor(scores) + image.mean() * 0, ()


def planted(boxes: list[list[float]], scores: list[float]) -> Planted:
    base = grounded("grounded-dino")
    made = Planted(base.model, name="planted")
    made.answer = (boxes, scores)
    return made


def test_the_mask_of_a_text_is_the_union_of_its_boxes_masks() -> None:
    model = planted([[0.1, 0.1, 0.6, 0.7], [0.5, 0.2, 0.9, 0.9], [0.0, 0.0, 0.2, 0.2]], [0.9, 0.95, 0.1])
    image = photo(40, 60)
    both = [box(6, 4, 36, 28), box(30, 8, 54, 36)]
    one = model.inner.decode(model.inner.encode(image[None], exact=True), [both], multimask=False)
    ours = model.decode(model.encode(image[None], exact=True), [[text("dog")]])
    assert ours.low_res.shape[1] == 1
    torch.testing.assert_close(ours.low_res[0, 0] > 0, (one.low_res[:, 0] > 0).any(0))
    torch.testing.assert_close(ours.iou[0, 0], one.iou.max())
    mixed = model.decode(model.encode(image[None], exact=True), [[both[0], text("dog")]])
    assert mixed.low_res.shape[1] == 3  # the click's three masks, the text's one three times
    torch.testing.assert_close(mixed.low_res[1, 0], ours.low_res[0, 0], atol=1e-5, rtol=0)
    assert torch.equal(mixed.low_res[1, 0], mixed.low_res[1, 2])


def test_no_box_is_an_empty_mask_that_still_has_a_gradient() -> None:
    model = planted([[0.1, 0.1, 0.6, 0.7]], [0.05])
    image = photo(40, 60)[None].requires_grad_()
    for frozen in (False, True):
        model.frozen_boxes = frozen
        found = model.decode(model.encode(image), [[text("dog"), text("cat")]])
        assert not (found.low_res > 0).any() and float(found.iou.detach().max()) == 0
        (gradient,) = torch.autograd.grad(found.low_res.sum(), image)
        assert torch.isfinite(gradient).all()


def test_one_look_for_one_text() -> None:
    model = planted([[0.1, 0.1, 0.6, 0.7]], [0.9])
    Planted.asked = 0
    model.predict(photo(40, 60)[None], [[text("dog"), text("dog"), text("cat")]])
    assert Planted.asked == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_frozen_boxes_come_from_the_clean_image_and_stay(family: str) -> None:
    model = grounded(family)
    model.frozen_boxes = True
    clean = photo(40, 56)
    attack = registry.create("attack", "pgd", steps=2)
    calls: list[int] = []
    model.detector.register_forward_pre_hook(lambda *_: calls.append(1))
    result = attack.run(model, clean[None], [[text("dog")]], threat=Threat(eps=16 / 255), seeds=[0])
    assert len(calls) == 1  # once, whatever the number of steps
    assert result.prompts is not None
    (asked,) = result.prompts[0]
    boxes = [d.box for d in model.detect(clean, "dog")]
    assert asked.found and len(asked.found) >= len(boxes)
    by_hand = model.inner.decode(
        model.inner.encode(from_uint8(result.images), exact=True),
        [[Prompt(box=b) for b in asked.found if inside(b)]],
        multimask=False,
    )
    wanted = model.frame(40, 56).logits(by_hand.low_res[:, 0].amax(0)[None, None])[0, 0]
    asked = replace(asked, found=tuple(b for b in asked.found if inside(b)))
    again = model.predict(from_uint8(result.images), [[asked]])[0]
    torch.testing.assert_close(again.logits[0], wanted, atol=1e-4, rtol=0)


def test_adaptive_gradients_reach_the_detector_and_frozen_ones_do_not() -> None:
    model = grounded("grounded-dino")
    image = photo(40, 56)
    gradients = []
    for frozen in (False, True):
        model.frozen_boxes = frozen
        leaf = image[None].clone().requires_grad_()
        logits = model.decode(model.encode(leaf), [[text("dog")]]).low_res
        gradients.append(torch.autograd.grad(logits.mean(), leaf)[0])
    assert not torch.allclose(gradients[0], gradients[1], rtol=1e-3)
    assert gradients[1].abs().sum() > 0


def test_the_mode_is_part_of_what_a_model_is() -> None:
    model = grounded("grounded-dino")
    before = model.fingerprint()
    model.frozen_boxes = True
    assert model.fingerprint() != before


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prefix", ["grounded", "grounded-frozen"])
def test_load_by_name(family: str, prefix: str, tmp_path: Path) -> None:
    original = grounded(family)
    original.model.save_pretrained(tmp_path)
    loaded = load(f"{prefix}:{tmp_path / 'detector'}+{tmp_path / 'segmenter'}")
    assert isinstance(loaded, GroundedSegmenter)
    assert loaded.family == family and loaded.name == "detector+segmenter"
    assert loaded.frozen_boxes == (prefix == "grounded-frozen")
    if family == "grounded-owlv2":
        ask = [[text("a dog")]]
        ours, theirs = (m.predict(photo(40, 56)[None], ask)[0].logits for m in (loaded, original))
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_any_segmenter_grounds() -> None:
    parts: Any = grounded("grounded-dino").model
    model = ground(parts.detector, tiny("sam2"), tokenizer=tiny_tokenizer("bert"), box_threshold=0.2)
    found = model.predict(photo(40, 56)[None], [[text("dog"), box(3, 3, 20, 20)]])[0]
    assert found.masks.shape == (2, 40, 56) and model.threshold == 0.2


@pytest.mark.parametrize("spec", ["grounded:", "grounded:x", "grounded:x+", "grounded:+x"])
def test_a_spec_without_two_parts_shows_one_that_has(spec: str) -> None:
    with pytest.raises(InputError, match="grounding-dino-base"):
        load(spec)


def test_what_is_no_detector_is_refused(tmp_path: Path) -> None:
    tiny("sam").model.save_pretrained(tmp_path / "sam")
    with pytest.raises(InputError, match="no detector"):
        load(f"grounded:{tmp_path / 'sam'}+{tmp_path / 'sam'}")
    with pytest.raises((UnknownName, InputError)):
        load("grounded:nothing+nothing")
    with pytest.raises(InputError, match="no detector"):
        ground(torch.nn.Linear(2, 2), tiny("sam"), tokenizer=None)
    model: Segmenter = tiny("sam")
    with pytest.raises(InputError, match="probability"):
        ground(grounded("grounded-dino").detector, model, tokenizer=None, box_threshold=2.0)


def test_a_detector_without_its_tokenizer_is_refused(tmp_path: Path) -> None:
    grounded("grounded-owlv2").model.save_pretrained(tmp_path)
    for file in (tmp_path / "detector").glob("*token*"):
        file.unlink()
    with pytest.raises(CheckpointError, match="tokenizer"):
        load(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    assert settings["model_type"] == "redsam-grounded-owlv2"
