"""Every registered Segmenter keeps the promises: real gradients, official numbers, batch equals loop, encode once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from redsam.errors import InputError, MissingExtra
from redsam.models import Prediction, Segmenter, lab_names, load, tiny
from redsam.models.hf import TransformersSegmenter
from redsam.prompts import Prompt, box, mask, point, text
from redsam.registry import entries
from redsam.types import to_uint8

# Stated and asserted: max abs difference of mask logits to the official processor and model, float32.
OFFICIAL_TOLERANCE = 1e-4

Recorder = Callable[[str, object], None]
Picture = Callable[..., Tensor]
Prompts = Callable[[int, int], list[Prompt]]


def _all_logits(prediction: Prediction) -> Tensor:
    """Every mask of every prompt in original pixels, flat."""
    parts = [
        prediction.frames[owner].logits(prediction.low_res[n][None]).flatten()
        for n, owner in enumerate(prediction.owner)
    ]
    return torch.cat(parts)


def test_gradient_agrees_with_finite_differences(family: str, make_picture: Picture, make_prompts: Prompts) -> None:
    model = tiny(family, seed=1, dtype=torch.float64)
    images = make_picture(40, 56, dtype=torch.float64)[None]
    prompts = [make_prompts(40, 56)]
    generator = torch.Generator().manual_seed(0)
    weights: Tensor | None = None

    def score(x: Tensor) -> Tensor:
        nonlocal weights
        logits = _all_logits(model.decode(model.encode(x), prompts))
        if weights is None:
            weights = torch.randn(logits.shape, generator=generator, dtype=torch.float64)
        return (logits * weights).mean()

    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(leaf), leaf)
    assert torch.isfinite(gradient).all() and (gradient.abs().sum(1) > 0).float().mean() > 0.99
    # transformers computes SAM 2's feature pyramid and SAM 3's rotary embedding in float32 even in a float64 model, so
    # a difference quotient is noisy there. Steps along the gradient's sign carry a strong signal, the random part sees
    # to it that a gradient which misses some pixels is found out.
    exact = model.frame(8, 8).kind == "pad"
    for _ in range(3):
        noise = torch.randn((2, *images.shape), generator=generator, dtype=torch.float64)
        direction = gradient.sign() * noise[0].abs() + noise[1]
        step = 1e-7 if exact else 1e-5  # so short that no pixel of a union changes its instance on the way
        with torch.no_grad():
            slope = (score(images + step * direction) - score(images - step * direction)) / (2 * step)
        expected = (gradient * direction).sum()
        torch.testing.assert_close(expected, slope, rtol=1e-5 if exact else 2e-3, atol=1e-10)


def test_equals_the_official_forward(
    family: str, make_picture: Picture, make_prompts: Prompts, record_property: Recorder
) -> None:
    """transformers' own forward on the same pixels, its masks brought back as its `post_process_masks` does."""
    model = tiny(family, seed=2)
    if model.takes_text:
        pytest.skip("texts are compared in test_grounded.py and test_sam3_text.py")
    if not model.takes_masks:
        pytest.skip("compared with its own package in test_fastsam.py")
    assert isinstance(model, TransformersSegmenter)
    height, width = 47, 70
    image, prompts = make_picture(height, width, seed=4), make_prompts(height, width)
    frame = model.frame(height, width)
    pixels = frame.fit_exact(to_uint8(image)[None])
    worst = 0.0
    for multimask in (True, False):
        ours = model.decode(model.encode(image[None], exact=True), [prompts], multimask=multimask)
        for n, prompt in enumerate(prompts):
            with torch.no_grad():
                out = model.net(pixels, multimask_output=multimask, **_official_prompt(model, prompt, height, width))
            torch.testing.assert_close(ours.iou[n], out.iou_scores[0, 0], rtol=0, atol=1e-5)
            worst = max(worst, float((ours.low_res[n] - out.pred_masks[0, 0]).abs().max()))
            assert out.pred_masks.abs().max() > 1e-2  # a comparison of zeros would prove nothing
    record_property("max_abs_difference", worst)
    assert worst <= OFFICIAL_TOLERANCE


def test_equals_the_official_pillow_processor(
    family: str, make_picture: Picture, make_prompts: Prompts, record_property: Recorder
) -> None:
    """End to end against `SamImageProcessorPil` and `SamProcessor`: pixels, coordinates, masks in original pixels."""
    from transformers import SamImageProcessorPil, SamProcessor

    model = tiny(family, seed=5)
    if model.frame(8, 8).kind != "pad" or model.takes_text or not model.takes_masks:
        pytest.skip("this family's official processor needs torchvision; see the next test")
    assert isinstance(model, TransformersSegmenter)
    worst = 0.0
    for height, width in ((47, 70), (130, 75), (64, 64)):
        processor = SamProcessor(_sized(SamImageProcessorPil, model.frame(height, width).side))
        image, prompts = make_picture(height, width, seed=height), make_prompts(height, width)
        ours = model.predict(image[None], [prompts], select="iou")[0].logits
        worst = max(worst, _official_difference(model, processor, image, prompts, ours))
    record_property("max_abs_difference", worst)
    assert worst <= OFFICIAL_TOLERANCE


@pytest.mark.parametrize("name", lab_names() or ["none"])
def test_bundled_model_equals_the_official_pillow_processor(
    name: str, make_picture: Picture, make_prompts: Prompts, record_property: Recorder
) -> None:
    """The same with trained weights, whose logits are larger."""
    if name not in lab_names():
        pytest.skip("no model is bundled")
    from transformers import SamImageProcessorPil, SamProcessor

    model = load(name)
    if model.frame(8, 8).kind != "pad" or model.takes_text:
        pytest.skip("this family's official processor needs torchvision")
    assert isinstance(model, TransformersSegmenter)
    processor = SamProcessor(_sized(SamImageProcessorPil, model.frame(8, 8).side))
    image, prompts = make_picture(321, 481, seed=1), make_prompts(321, 481)
    ours = model.predict(image[None], [prompts], select="iou")[0].logits
    worst = _official_difference(model, processor, image, prompts, ours)
    record_property("max_abs_difference", worst)
    assert worst <= OFFICIAL_TOLERANCE


def test_equals_the_official_torchvision_processor(
    family: str, make_picture: Picture, make_prompts: Prompts, record_property: Recorder
) -> None:
    """The same for the families whose processor resizes with torchvision."""
    model = tiny(family, seed=5)
    if model.frame(8, 8).kind != "stretch" or model.takes_text:
        pytest.skip("this family's official processor is the Pillow one; see the test before")
    pytest.importorskip("torchvision", reason="the official processor of SAM 2 and SAM 3 needs torchvision")
    from transformers import Sam2ImageProcessor, Sam2Processor, Sam3ImageProcessor

    assert isinstance(model, TransformersSegmenter)
    worst = 0.0
    for height, width in ((47, 70), (130, 75), (64, 64)):
        kind = Sam3ImageProcessor if family == "sam3-tracker" else Sam2ImageProcessor
        side = model.frame(height, width).side
        processor = Sam2Processor(kind(size={"height": side, "width": side}), target_size=side)
        image, prompts = make_picture(height, width, seed=height), make_prompts(height, width)
        ours = model.predict(image[None], [prompts], select="iou")[0].logits
        worst = max(worst, _official_difference(model, processor, image, prompts, ours))
    record_property("max_abs_difference", worst)
    assert worst <= OFFICIAL_TOLERANCE


def test_batch_equals_loop(segmenter: Segmenter, make_picture: Picture, make_prompts: Prompts) -> None:
    """Different sizes, ragged counts, one image without any prompt."""
    images = [make_picture(47, 70, seed=1), make_picture(64, 64, seed=2), make_picture(90, 33, seed=3)]
    prompts = [make_prompts(47, 70), [], make_prompts(90, 33)[2:5]]
    together = segmenter.predict(images, prompts)
    assert [len(m.masks) for m in together] == [8, 0, 3]
    assert together[1].logits.shape == (0, 64, 64)
    for i in (0, 2):
        for p, prompt in enumerate(prompts[i]):
            alone = segmenter.predict([images[i]], [[prompt]])[0]
            torch.testing.assert_close(together[i].logits[p], alone.logits[0], rtol=0, atol=2e-5)
            torch.testing.assert_close(together[i].iou[p], alone.iou[0], rtol=0, atol=2e-5)
            assert together[i].choice[p] == alone.choice[0]


def test_same_size_tensor_equals_list(segmenter: Segmenter, make_picture: Picture) -> None:
    images = torch.stack([make_picture(50, 40, seed=s) for s in range(3)])
    tensor, listed = segmenter.encode(images), segmenter.encode(list(images))
    torch.testing.assert_close(tensor.features, listed.features, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", ["point", "box", "mask"])
def test_prompts_move_with_the_image(segmenter: Segmenter, make_picture: Picture, kind: str) -> None:
    """An image of twice the size with prompts of twice the coordinates is the same question; with the old coordinates
    it is another one."""
    height, width = 44, 60
    if not segmenter.takes_clicks:
        pytest.skip("a text has no place")
    if not segmenter.takes_masks:
        pytest.skip("the prompt chooses among instances and does not shape them: coordinates in test_fastsam.py")
    image = make_picture(height, width, seed=7)
    large = image.repeat_interleave(2, 1).repeat_interleave(2, 2)

    def ask(factor: int) -> Prompt:
        prior = np.zeros((height, width), dtype=bool)
        prior[5:25, 30:55] = True
        if kind == "mask":
            return mask(prior.repeat(factor, 0).repeat(factor, 1))
        return point(41 * factor, 12 * factor) if kind == "point" else box(*(c * factor for c in (30, 5, 55, 25)))

    def answer(x: Tensor, prompt: Prompt) -> Tensor:
        prediction = segmenter.decode(segmenter.encode(x[None]), [[prompt]])
        return prediction.low_res.detach()

    if kind == "mask":  # the unmoved mask: the old one in the corner of the large image
        corner = np.zeros((2 * height, 2 * width), dtype=bool)
        small = ask(1).mask
        assert small is not None
        corner[:height, :width] = small
        unmoved = mask(corner)
    else:
        unmoved = ask(1)
    wanted = answer(image, ask(1))
    right = (answer(large, ask(2)) - wanted).abs().mean()
    wrong = (answer(large, unmoved) - wanted).abs().mean()
    assert right < 0.25 * wrong


def test_checkpointing_changes_nothing_but_memory(family: str, make_picture: Picture, make_prompts: Prompts) -> None:
    results = []
    for checkpointing in (False, True):
        model = tiny(family, seed=6, checkpointing=checkpointing)
        assert isinstance(model, TransformersSegmenter)
        inner_calls: list[int] = []
        try:
            first_block = next(iter(model.blocks()))
        except InputError as error:
            pytest.skip(str(error))
        inner = next(m for m in first_block.modules() if isinstance(m, torch.nn.LayerNorm))
        inner.register_forward_pre_hook(lambda *_, store=inner_calls: store.append(1))
        image = make_picture(40, 56)[None].requires_grad_()
        prediction = model.decode(model.encode(image), [make_prompts(40, 56)])
        prediction.low_res.square().mean().backward()
        results.append((prediction.low_res.detach(), image.grad, len(inner_calls), model.fingerprint()))
    (plain, plain_grad, once, name), (saved, saved_grad, twice, other) = results
    assert torch.equal(plain, saved) and name == other
    assert plain_grad is not None and saved_grad is not None
    torch.testing.assert_close(plain_grad, saved_grad, rtol=1e-5, atol=1e-9)
    assert (once, twice) == (1, 2)  # the block really ran again in the backward pass, in eval mode


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_half_precision_runs_and_stays_close(
    family: str, make_picture: Picture, make_prompts: Prompts, dtype: torch.dtype
) -> None:
    full, half = tiny(family, seed=8), tiny(family, seed=8, dtype=dtype)
    assert half.dtype == dtype
    image = make_picture(40, 56)[None].requires_grad_()
    prompts = [make_prompts(40, 56)]
    reference = full.decode(full.encode(image), prompts)
    answer = half.decode(half.encode(image), prompts)
    (gradient,) = torch.autograd.grad(answer.low_res.mean(), image)
    assert answer.low_res.dtype == torch.float32 and gradient.dtype == torch.float32
    assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0
    pair = torch.stack([reference.low_res.detach().flatten(), answer.low_res.detach().flatten()])
    assert torch.corrcoef(pair)[0, 1] > 0.98


def test_many_prompts_cost_one_encoder_pass(segmenter: Segmenter, make_picture: Picture, make_prompts: Prompts) -> None:
    assert isinstance(segmenter, TransformersSegmenter)
    calls: list[int] = []
    segmenter.net.vision_encoder.register_forward_pre_hook(lambda *_: calls.append(1))
    segmenter.predict(make_picture(40, 56)[None], [make_prompts(40, 56)])
    assert calls == [1]


def test_weights_stay_frozen_and_answers_repeat(
    segmenter: Segmenter, make_picture: Picture, make_prompts: Prompts
) -> None:
    before = segmenter.fingerprint()
    image = make_picture(40, 56)[None].requires_grad_()
    segmenter.decode(segmenter.encode(image), [make_prompts(40, 56)]).low_res.sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in segmenter.model.parameters())
    first, second = (segmenter.predict(image.detach(), [make_prompts(40, 56)])[0] for _ in range(2))
    assert torch.equal(first.logits, second.logits) and segmenter.fingerprint() == before
    assert torch.equal(first.masks, first.logits > 0)


def test_predict_refuses_what_no_file_can_hold(segmenter: Segmenter, make_picture: Picture) -> None:
    with pytest.raises(InputError, match="8-bit lattice"):
        ask = point(3, 3) if segmenter.takes_clicks else text("dog")
        segmenter.predict(make_picture(20, 30)[None] * 0.999, [[ask]])


def test_edgetam_without_timm_says_what_to_install() -> None:
    entry = next(e for e in entries("model") if e.name == "edgetam")
    try:
        entry.obj.require()
    except MissingExtra as error:
        assert "redsam[edgetam]" in str(error)
    else:
        assert tiny("edgetam").family == "edgetam"


def _official_prompt(model: Segmenter, prompt: Prompt, height: int, width: int) -> dict[str, Any]:
    """A prompt as transformers' forward takes it, from the processor's own formula: scale by new size / old size."""
    frame = model.frame(height, width)
    scale = np.array([frame.content[1] / width, frame.content[0] / height])
    out: dict[str, Any] = {}
    if prompt.points:
        out["input_points"] = torch.tensor(np.array(prompt.points) * scale)[None, None]
        out["input_labels"] = torch.tensor(prompt.labels)[None, None]
    if prompt.box is not None:
        out["input_boxes"] = torch.tensor((np.array(prompt.box).reshape(2, 2) * scale).reshape(1, 1, 4))
    if prompt.mask is not None:
        out["input_masks"] = frame.mask_prompt(prompt.mask, model.mask_size)[None]
    return out


def _sized(kind: Any, side: int) -> Any:
    """The official Pillow processor at another side than 1024."""
    low = {"height": side // 4, "width": side // 4}
    return kind(
        size={"longest_edge": side},
        pad_size={"height": side, "width": side},
        mask_size={"longest_edge": side // 4},
        mask_pad_size=low,
    )


def _official_difference(
    model: TransformersSegmenter, processor: Any, image: Tensor, prompts: list[Prompt], ours: Tensor
) -> float:
    """Max abs difference of full-size logits over the prompts, with the mask of highest predicted IoU."""
    worst = 0.0
    array = to_uint8(image).permute(1, 2, 0).numpy()
    for n, prompt in enumerate(prompts):
        given: dict[str, Any] = {}
        if prompt.points:
            given["input_points"] = [[[list(p) for p in prompt.points]]]
            given["input_labels"] = [[list(prompt.labels)]]
        if prompt.box is not None:
            given["input_boxes"] = [[list(prompt.box)]]
        inputs = processor(images=array, return_tensors="pt", **given)
        sizes = [inputs.pop(k) for k in ("original_sizes", "reshaped_input_sizes") if k in inputs]
        if prompt.mask is not None:  # the processors take no mask prompt
            frame = model.frame(*prompt.mask.shape)
            inputs["input_masks"] = frame.mask_prompt(prompt.mask, model.mask_size)[None]
        with torch.no_grad():
            out = model.net(**inputs, multimask_output=True)
        official = processor.post_process_masks(out.pred_masks, *sizes, binarize=False)[0][0]
        best = out.iou_scores[0, 0].argmax()
        worst = max(worst, float((official[best] - ours[n]).abs().max()))
        assert official.shape[-2:] == F.interpolate(image[None], image.shape[-2:])[0].shape[-2:]
    return worst
