"""SEA: its losses in closed form, its stages, and what it delivers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from redsam import registry
from redsam.attacks.apgd import APGD
from redsam.attacks.sea import LOSSES, SEA, Ledger, js, masked_ce, masked_logit, stages
from redsam.errors import InputError
from redsam.models import tiny
from redsam.prompts import Prompt, box, point
from redsam.threat import Threat
from redsam.types import from_uint8

PROMPTS: list[list[Prompt]] = [[point(5, 7), box(2, 3, 20, 18)], [point(9, 9)]]


def pictures(count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return from_uint8(torch.randint(0, 256, (count, 3, 24, 32), generator=generator, dtype=torch.uint8))


# --- losses --------------------------------------------------------------------------------------------------------
def gradient(loss: Any, logits: list[float], reference: list[bool]) -> Tensor:
    z = torch.tensor([[logits]], dtype=torch.float64, requires_grad=True)
    (out,) = torch.autograd.grad(loss(z, torch.tensor([[reference]])).sum(), z)
    return out.flatten()


def test_masked_cross_entropy_leaves_wrong_pixels_alone() -> None:
    logits, reference = torch.tensor([[[2.0, -3.0, -1.0]]]), torch.tensor([[[True, True, False]]])
    right = [math.log1p(math.exp(-2.0)), math.log1p(math.exp(-1.0))]
    assert float(masked_ce(logits, reference)) == pytest.approx(-sum(right) / 3)
    slope = gradient(masked_ce, [2.0, -3.0, -1.0], [True, True, False])
    assert slope[0] > 0 and slope[1] == 0 and slope[2] < 0


def test_jensen_shannon_against_its_definition() -> None:
    for z in (-4.0, -0.3, 0.0, 1.0, 5.0):
        q = 1 / (1 + math.exp(-z))
        p, y = (q, 1 - q), (1.0, 0.0)
        middle = [(a + b) / 2 for a, b in zip(p, y, strict=True)]
        kl = [sum(a * math.log(a / m) for a, m in zip(one, middle, strict=True) if a > 0) for one in (p, y)]
        expected = -sum(kl) / 2
        assert float(js(torch.tensor([[[z]]]), torch.tensor([[[True]]]))) == pytest.approx(expected, abs=1e-6)
        assert float(js(torch.tensor([[[-z]]]), torch.tensor([[[False]]]))) == pytest.approx(expected, abs=1e-6)


def test_jensen_shannon_is_bounded_and_fades_on_both_sides() -> None:
    lost = js(torch.full((1, 2, 2), -90.0), torch.ones(1, 2, 2, dtype=torch.bool))
    sure = js(torch.full((1, 2, 2), 90.0), torch.ones(1, 2, 2, dtype=torch.bool))
    assert float(lost) == pytest.approx(-math.log(2)) and float(sure) == pytest.approx(0, abs=1e-6)
    slope = gradient(js, [-20.0, 0.0, 20.0], [True, True, True])
    assert slope.isfinite().all() and float(slope[1]) > 1e4 * float(slope[[0, 2]].abs().max())


def test_the_masked_logit_is_blind_to_scale_and_pulls_on_sure_pixels() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 5, 5, generator=generator)
    reference = torch.rand(2, 5, 5, generator=generator) > 0.5
    assert torch.allclose(masked_logit(logits, reference), masked_logit(7 * logits, reference))
    assert float(masked_logit(torch.tensor([[[3.0, -4.0]]]), torch.tensor([[[True, True]]]))) == pytest.approx(
        3 / 2 / math.sqrt(12.5)
    )
    sure = [30.0, 1.0, -1.0, -25.0]
    truth = [True, True, False, False]
    ours, theirs = gradient(masked_logit, sure, truth), gradient(masked_ce, sure, truth)
    assert ours[3].abs() > 0.01 * ours[1].abs() and theirs[3].abs() < 1e-6 * theirs[1].abs()


# --- the attack ----------------------------------------------------------------------------------------------------
def test_the_radii_are_those_of_the_paper() -> None:
    assert stages(300) == [(2.0, 90), (1.5, 90), (1.0, 120)]
    assert stages(10) == [(2.0, 3), (1.5, 3), (1.0, 4)]
    assert stages(1) == [(1.0, 1)] and all(sum(n for _, n in stages(k)) == k for k in range(1, 40))


def accuracy(model: Any, images: Tensor, reference: list[Tensor]) -> list[float]:
    found = model.predict(images, PROMPTS)
    return [float((m.masks == r).float().mean()) for m, r in zip(found, reference, strict=True)]


@pytest.fixture(scope="module")
def sam() -> Any:
    return tiny("sam", image_size=32)


def test_it_delivers_the_worst_iterate_of_all_runs_inside_the_budget(sam: Any) -> None:
    reference = [m.masks for m in sam.predict(pictures(), PROMPTS)]
    result = SEA(iterations=10).run(sam, pictures(), PROMPTS, threat=Threat(eps=8 / 255), seeds=[1, 2])
    assert all(b.linf <= 8 / 255 for b in result.budget)
    assert result.steps == (40, 40) and result.gradients == 80
    assert result.losses.shape == (len(LOSSES) * (4 + 1), 2)  # those of the last stages
    got = accuracy(sam, from_uint8(result.images), reference)
    # Delivered images are rounded to 8 bits, so a pixel at the edge of a mask may turn.
    assert got == pytest.approx(result.losses.min(0).values.tolist(), abs=0.02)
    assert all(g < 1 for g in got)


def test_it_is_at_least_as_strong_as_each_of_its_runs(sam: Any) -> None:
    """By its own measure, pixel accuracy: each run's iterates are among those it chooses from."""
    result = SEA(iterations=6).run(sam, pictures(), PROMPTS, threat=Threat(eps=8 / 255))
    rows = result.losses.view(len(LOSSES), -1, 2)
    assert (result.losses.min(0).values <= rows.min(1).values).all()
    assert len({tuple(r.flatten().tolist()) for r in rows}) == len(LOSSES)  # the losses do differ


@pytest.mark.parametrize("name", LOSSES)
def test_one_loss_alone_is_its_run_among_the_four(sam: Any, name: str) -> None:
    whole = SEA(iterations=4).run(sam, pictures(), PROMPTS, threat=Threat(eps=8 / 255), seeds=[1, 2])
    alone = SEA(iterations=4, losses=[name]).run(sam, pictures(), PROMPTS, threat=Threat(eps=8 / 255), seeds=[1, 2])
    rows = whole.losses.view(len(LOSSES), -1, 2)
    assert torch.equal(alone.losses, rows[LOSSES.index(name)]) and alone.steps == (4, 4) and alone.gradients == 8


def test_losses_are_the_paper_s_each_once() -> None:
    assert SEA().losses == LOSSES and SEA(losses="js").losses == ("js",)
    for losses in ((), ("bce",), ("js", "js")):
        with pytest.raises(InputError, match="losses="):
            SEA(losses=losses)


def test_of_equal_iterates_the_first_stays() -> None:
    ledger = Ledger(accuracy=torch.full((3,), float("inf")), worst=torch.zeros(3, 1, 1, 2), rows=[])
    look, truth = ledger.watch([0, 2]), torch.ones(2, 1, 2, dtype=torch.bool)
    half, none = torch.tensor([[[1.0, -1.0]]]), torch.tensor([[[-1.0, -1.0]]])
    for value, logits in ((1.0, [half, half]), (2.0, [half, none])):
        look(torch.full((2, 1, 1, 2), value), [0, 1], torch.cat(logits), truth, torch.tensor([0, 1]))
    assert ledger.worst[:, 0, 0, 0].tolist() == [1.0, 0.0, 2.0] and ledger.accuracy.tolist() == [0.5, float("inf"), 0.0]


def test_the_early_stages_look_further_than_the_budget(sam: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    parts = APGD.parts
    monkeypatch.setattr(APGD, "parts", lambda self, threat: (seen.append(threat.eps), parts(self, threat))[1])
    SEA(iterations=10).run(sam, pictures(1), PROMPTS[:1], threat=Threat(eps=4 / 255))
    assert seen == pytest.approx([8 / 255, 6 / 255, 4 / 255] * len(LOSSES))
    seen.clear()
    SEA(iterations=10).run(sam, pictures(1), PROMPTS[:1], threat=Threat(eps=0.7))
    assert max(seen) == 1.0  # no more than the whole range


def test_an_image_that_reaches_its_goal_leaves_out_the_other_runs(toy_class: Any) -> None:
    model = toy_class(side=16)
    easy = from_uint8(torch.full((1, 3, 16, 16), 130, dtype=torch.uint8))
    hard = from_uint8(torch.full((1, 3, 16, 16), 250, dtype=torch.uint8))
    where: list[list[Prompt]] = [[point(1, 1)], [point(1, 1)]]
    result = SEA(iterations=10, stop_at=0.0).run(model, torch.cat([easy, hard]), where, threat=Threat(eps=8 / 255))
    assert result.steps[0] < 10 and result.steps[1] == 40
    assert not model.predict(from_uint8(result.images[:1]), where[:1])[0].masks.any()


def test_it_refuses_what_it_cannot_do(sam: Any) -> None:
    for attack, threat, said in (
        (SEA(iterations=0), Threat(), "0 iterations"),
        (SEA(iterations=10), Threat(queries=51), "52 forward passes"),
    ):
        with pytest.raises(InputError, match=said):
            attack.run(sam, pictures(), PROMPTS, threat=threat)
    SEA(iterations=1).run(sam, pictures(), PROMPTS, threat=Threat(queries=8))


def test_its_losses_can_be_used_by_any_attack() -> None:
    assert {e.name for e in registry.entries("objective")} >= set(LOSSES)
