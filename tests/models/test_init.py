"""`initialise` and `tiny`: sane, seeded, and without a trace in the global generator."""

from __future__ import annotations

import pytest
import torch

from redsam.models import tiny
from redsam.models.hf import TransformersSegmenter


def test_seed_decides_and_the_global_generator_is_left_alone(family: str) -> None:
    before = torch.random.get_rng_state()
    first, again, other = tiny(family, seed=1), tiny(family, seed=1), tiny(family, seed=2)
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    assert torch.equal(before, torch.random.get_rng_state())


def test_position_encoding_is_shared_and_of_scale_one(family: str) -> None:
    """transformers' own start has scale hidden_size / 2 in SAM; Meta's is 1."""
    model = tiny(family, seed=1)
    if not model.takes_clicks:
        pytest.skip("texts have no place")
    assert isinstance(model, TransformersSegmenter)
    grid = model.net.shared_image_embedding.positional_embedding
    prompt = model.net.prompt_encoder.shared_embedding.positional_embedding
    assert torch.equal(grid, prompt) and 0.5 < float(grid.std()) < 1.5


def test_no_part_of_the_encoder_is_dead(family: str) -> None:
    """transformers' SAM starts its encoder with std 1e-10, which leaves gradients of 1e-20."""
    model = tiny(family, seed=1)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    features = model.encode(image).features  # of unit variance after the last norm: weigh them to get a slope
    (features * torch.randn(features.shape, generator=torch.Generator().manual_seed(1))).mean().backward()
    assert image.grad is not None and float(image.grad.abs().mean()) > 1e-7


def test_image_size_is_an_argument(family: str) -> None:
    assert tiny(family, image_size=128).frame(10, 10).side == 128
