"""Objectives against closed forms and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from redsam import objectives, registry

MASK = [e.name for e in registry.entries("objective") if e.meta["on"] == "mask"]
FEATURE = [e.name for e in registry.entries("objective") if e.meta["on"] == "feature"]


def case(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 5, 7, generator=generator, dtype=dtype) * 6
    return logits, torch.rand(3, 5, 7, generator=generator) > 0.6


def test_the_published_names_are_all_there() -> None:
    assert set(MASK) >= {"vanish", "enlarge", "mse", "bce", "dice", "segpgd"}
    assert set(FEATURE) >= {"feature-cosine", "feature-l2"}


@pytest.mark.parametrize("entry", registry.entries("objective"), ids=lambda e: e.name)
def test_every_objective_says_where_it_comes_from(entry: registry.Entry) -> None:
    assert entry.summary and {"on", "paper", "year", "url"} <= set(entry.meta)


@pytest.mark.parametrize("name", MASK)
def test_a_batch_of_prompts_is_a_loop_over_them(name: str) -> None:
    loss = registry.get("objective", name).obj
    logits, reference = case()
    together = loss(logits, reference, progress=0.3)
    alone = torch.cat([loss(logits[i : i + 1], reference[i : i + 1], progress=0.3) for i in range(3)])
    assert together.shape == (3,) and torch.allclose(together, alone)


@pytest.mark.parametrize("name", MASK)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    loss = registry.get("objective", name).obj
    logits, reference = case(1)
    assert torch.autograd.gradcheck(lambda x: loss(x, reference, progress=0.5), logits.requires_grad_(True))


@pytest.mark.parametrize("name", FEATURE)
def test_feature_gradients_agree_with_finite_differences(name: str) -> None:
    loss = registry.get("objective", name).obj
    generator = torch.Generator().manual_seed(2)
    clean = torch.randn(2, 4, 3, 3, generator=generator, dtype=torch.float64)
    features = (clean + torch.randn(2, 4, 3, 3, generator=generator)).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: loss(x, clean), features)


def test_vanish_is_zero_with_zero_gradient_below_the_threshold() -> None:
    logits = torch.full((1, 4, 4), -10.5, requires_grad=True)
    loss = objectives.vanish(logits, torch.ones(1, 4, 4, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert float(loss.detach()) == 0 and not gradient.any()
    mixed = torch.tensor([[[-20.0, -10.0], [-7.0, 2.0]]], requires_grad=True)
    loss = objectives.vanish(mixed, torch.zeros(1, 2, 2, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(loss.sum(), mixed)
    assert float(loss.detach()) == pytest.approx((3**2 + 12**2) / 4)
    assert gradient.flatten().tolist() == pytest.approx([0, 0, 2 * 3 / 4, 2 * 12 / 4])


def test_enlarge_is_vanish_of_the_negated_logits() -> None:
    logits, reference = case()
    assert torch.allclose(objectives.enlarge(logits, reference), objectives.vanish(-logits, reference))


def test_mse_is_zero_on_the_target_and_one_on_its_reverse() -> None:
    _, target = case()
    sure = torch.where(target, 50.0, -50.0)
    assert torch.allclose(objectives.mse(sure, target), torch.zeros(3), atol=1e-6)
    assert torch.allclose(objectives.mse(sure, ~target), torch.ones(3), atol=1e-6)


def test_bce_at_no_opinion_is_log_two() -> None:
    _, reference = case()
    assert objectives.bce(torch.zeros(3, 5, 7), reference).tolist() == pytest.approx([-math.log(2)] * 3)


def test_dice_closed_forms() -> None:
    _, reference = case()
    sure = torch.where(reference, 50.0, -50.0)
    assert torch.allclose(objectives.dice(sure, reference), torch.ones(3), atol=1e-6)
    assert torch.allclose(objectives.dice(-sure, reference), torch.zeros(3), atol=1e-6)
    nothing = torch.zeros(1, 4, 4, dtype=torch.bool)
    assert float(objectives.dice(torch.full((1, 4, 4), -200.0), nothing)) == 0


def test_segpgd_weights_move_from_correct_to_wrong_pixels() -> None:
    logits = torch.tensor([[[2.0, -3.0]]])
    reference = torch.tensor([[[True, True]]])  # the first pixel is right, the second wrong
    right, wrong = math.log1p(math.exp(-2.0)), math.log1p(math.exp(3.0))
    for progress in (0.0, 0.4, 1.0):
        share = progress / 2
        expected = -((1 - share) * right + share * wrong) / 2
        assert float(objectives.segpgd(logits, reference, progress=progress)) == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(objectives.segpgd(logits, reference, progress=1.0), objectives.bce(logits, reference) / 2)


def test_features_at_the_clean_point() -> None:
    clean = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    same = clean.clone().requires_grad_(True)
    assert objectives.feature_cosine(same, clean).tolist() == pytest.approx([1, 1])
    (gradient,) = torch.autograd.grad(objectives.feature_l2(same, clean).sum(), same)
    assert gradient.isfinite().all() and not gradient.any()
    shifted = objectives.feature_l2(clean + 2.0, clean)
    assert shifted.tolist() == pytest.approx([-2 * math.sqrt(36)] * 2)
    assert objectives.feature_cosine(-clean, clean).tolist() == pytest.approx([-1, -1])
