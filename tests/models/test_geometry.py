"""Frames: rounding of the official processor, prompts and masks there and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import SamImageProcessorPil

from redsam.models.geometry import Frame


@pytest.mark.parametrize("side", [64, 192, 1024])
def test_content_rounds_as_the_official_processor(side: int) -> None:
    processor = SamImageProcessorPil()
    generator = np.random.default_rng(0)
    for height, width in generator.integers(2, 2000, (300, 2)).tolist():
        frame = Frame(kind="pad", height=height, width=width, side=side)
        official = processor._get_preprocess_shape((height, width), longest_edge=side)
        assert frame.content == tuple(max(v, 1) for v in official)


def test_pad_is_zero_after_normalising_and_at_the_bottom() -> None:
    frame = Frame(kind="pad", height=20, width=40, side=32)
    pixels = frame.fit(torch.rand(2, 3, 20, 40, generator=torch.Generator().manual_seed(0)))
    assert pixels.shape == (2, 3, 32, 32)
    assert (pixels[:, :, 16:] == 0).all() and (pixels[:, :, :16] != 0).all()


def test_stretch_fills_the_frame_and_scales_each_axis() -> None:
    frame = Frame(kind="stretch", height=20, width=40, side=64)
    assert frame.content == (64, 64)
    assert frame.coordinates(torch.tensor([[10.0, 10.0]])).tolist() == [[16.0, 32.0]]


@pytest.mark.parametrize("kind", ["pad", "stretch"])
def test_a_mask_survives_the_way_in_and_out(kind: str) -> None:
    frame = Frame(kind=kind, height=60, width=100, side=64)  # type: ignore[arg-type]
    mask = np.zeros((60, 100), dtype=bool)
    mask[12:48, 25:80] = True
    logits = frame.mask_prompt(mask, (32, 32))
    assert logits.shape == (1, 32, 32) and logits.abs().max() <= 10
    back = (frame.logits(logits[None])[0, 0] > 0).numpy()
    assert (back & mask).sum() / (back | mask).sum() > 0.93


def test_mask_prompt_sees_nothing_in_the_padding() -> None:
    frame = Frame(kind="pad", height=20, width=40, side=64)
    logits = frame.mask_prompt(np.ones((20, 40), dtype=bool), (32, 32))
    assert (logits[0, :15] == 10).all() and (logits[0, 17:] == -10).all()


def test_gradient_of_the_fit_is_finite_and_reaches_every_pixel() -> None:
    image = torch.rand(1, 3, 37, 53, generator=torch.Generator().manual_seed(1)).requires_grad_()
    Frame(kind="pad", height=37, width=53, side=32).fit(image).sum().backward()
    assert image.grad is not None and (image.grad.abs() > 0).all()


@pytest.mark.parametrize("kind", ["pad", "stretch"])
@pytest.mark.parametrize("size", [(33, 47), (90, 20), (301, 640)])
def test_logits_with_a_gradient_are_the_official_ones_up_to_rounding(kind: str, size: tuple[int, int]) -> None:
    frame = Frame(kind=kind, height=size[0], width=size[1], side=64)  # type: ignore[arg-type]
    low = torch.randn(3, 2, 16, 16, generator=torch.Generator().manual_seed(0)) * 10
    plain, steered = low.clone().double().requires_grad_(True), low.clone().requires_grad_(True)
    out = plain
    if kind == "pad":
        out = torch.nn.functional.interpolate(out, (64, 64), mode="bilinear")
        out = out[..., : frame.content[0], : frame.content[1]]
    out = torch.nn.functional.interpolate(out, size, mode="bilinear")
    found = frame.logits(steered)
    assert torch.allclose(found, frame.logits(low), atol=1e-4)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    (out * weights.double()).sum().backward()
    (found * weights).sum().backward()
    assert plain.grad is not None and steered.grad is not None
    assert torch.allclose(steered.grad.double(), plain.grad, rtol=1e-4, atol=1e-4)
