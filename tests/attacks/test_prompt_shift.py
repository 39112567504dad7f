"""Prompts that move: gradients against finite differences, a known optimum, and that nothing moves too far."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from redsam import registry
from redsam.attacks.base import Attack
from redsam.attacks.moves import STILL, Moves, disc, limits, moved
from redsam.attacks.prompt_shift import PromptShift
from redsam.attacks.prompt_shift_gradient import PromptShiftGradient
from redsam.attacks.task import Task
from redsam.errors import InputError
from redsam.models import Segmenter, pipeline, tiny, wrap
from redsam.prompts import Prompt, box, mask, point, points, shift
from redsam.threat import Threat
from redsam.types import from_uint8, to_uint8

SIDE = 32
ATTACKS: list[Attack] = [PromptShift(samples=30), PromptShiftGradient(steps=12)]
IDS = ["draws", "gradient"]
MIXED: list[list[Prompt]] = [
    [point(20, 11), replace(points([(4, 5), (30, 20)], [1, 0]), box=(3, 4, 25, 22))],
    [box(2, 3, 20, 18), mask(np.eye(24, 40, dtype=bool))],
]


def noise(count: int = 1, height: int = SIDE, width: int = SIDE) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return from_uint8(torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8))


def disc_model(radius: float = 6.0) -> Segmenter:
    """Its mask is a disc around the prompt (a point, or a box's middle), whatever the image."""
    grid = torch.stack(torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="xy"), dim=-1).double()

    def decode(features: Tensor, *, points: Any, boxes: Any, multimask: bool, **_: Any) -> tuple[Tensor, Tensor]:
        middle = points[:, 0, 0] if points is not None else boxes.view(-1, 2, 2).mean(1)
        logits = radius - (grid - middle[:, None, None]).square().sum(-1).add(1e-9).sqrt()
        count = 3 if multimask else 1
        return logits[:, None].expand(-1, count, -1, -1), torch.ones(len(features), count)

    return wrap(nn.Linear(1, 1), image_size=SIDE, kind="stretch", embed=lambda x: x, decode=decode, name="disc")


@pytest.mark.parametrize("family", ["sam", "sam2"])
def test_gradients_of_coordinates_are_finite_differences(family: str) -> None:
    """Through prompt encoder, frame change (the image is not square) and decoder, for points and boxes together."""
    # Only SAM runs in float64 as a whole; SAM 2 is compared over a wider step.
    segmenter = tiny(family, dtype=torch.float64 if family == "sam" else torch.float32)
    task = Task(segmenter=segmenter, clean=noise(2, 24, 40).to(segmenter.dtype), prompts=MIXED,
                reference=[torch.ones(2, 24, 40).bool()] * 2, threat=Threat(norm="shift", eps=5))  # fmt: skip
    moves = Moves.of(task)

    def value(places: list[Tensor]) -> Tensor:
        logits = moves.answers(places, [0, 1], "single")[0]
        return logits.double().sigmoid().flatten(1).mean(1).sum()

    leaves = [home.clone().requires_grad_() for home in moves.home]
    slopes = torch.autograd.grad(value(leaves), leaves, allow_unused=True)
    assert slopes[3] is None and [len(home) for home in moves.home] == [1, 4, 2, 0]  # a mask has no handle
    width = 1e-4 if family == "sam" else 0.1
    for n, slope in enumerate(slopes[:3]):
        assert slope is not None and bool(slope.abs().max() > 1e-7)
        for row in range(len(slope)):
            for axis in range(2):
                ends = []
                for sign in (1, -1):
                    places = [home.clone() for home in moves.home]
                    places[n][row, axis] += sign * width
                    with torch.no_grad():
                        ends.append(float(value(places)))
                estimate = (ends[0] - ends[1]) / (2 * width)
                tolerance = {"rel": 1e-3, "abs": 1e-8} if family == "sam" else {"rel": 0.05, "abs": 3e-5}
                assert float(slope[row, axis]) == pytest.approx(estimate, **tolerance)


def test_handles_at_home_change_nothing() -> None:
    segmenter = tiny("sam")
    encoding = segmenter.encode(noise(2, 24, 40))
    homes = [pipeline.handles_of(prompt) for prompts in MIXED for prompt in prompts]
    assert torch.equal(
        segmenter.decode(encoding, MIXED).low_res, pipeline.decode(segmenter, encoding, MIXED, handles=homes).low_res
    )


def test_the_gradient_finds_the_farthest_place() -> None:
    """The mask follows the point, so the worst place is on the rim; the draws come near it."""
    segmenter, threat = disc_model(), Threat(norm="shift", eps=4)
    off = [[point(16, 16)]]
    reference = [segmenter.predict(noise(), [[point(15, 16)]])[0].masks]  # already one pixel to the right of it
    found = PromptShiftGradient(steps=12).run(segmenter, noise(), off, threat=threat, reference=reference)
    assert found.prompts is not None and found.budget[0].shift == pytest.approx(4, abs=1e-6)
    assert found.prompts[0][0].points[0] == pytest.approx((20, 16), abs=1e-3)
    drawn = PromptShift(samples=200).run(segmenter, noise(), off, threat=threat, reference=reference)
    assert drawn.prompts is not None and drawn.prompts[0][0].points[0][0] > 19
    masks = [segmenter.predict(noise(), r.prompts)[0].masks for r in (found, drawn) if r.prompts is not None]
    iou = [float((m & reference[0]).sum() / (m | reference[0]).sum()) for m in masks]
    assert iou[1] == pytest.approx(float(drawn.losses.min())) and iou[0] <= iou[1] + 0.02
    assert drawn.losses[1:].mean() > drawn.losses.min()  # an average sloppy click costs less than the worst


def test_each_prompt_keeps_its_own_worst_draw() -> None:
    segmenter, threat = disc_model(), Threat(norm="shift", eps=4)
    pair = [[point(16, 16), box(8, 8, 20, 20)]]
    both = PromptShift(samples=50).run(segmenter, noise(), pair, threat=threat, seeds=[3])
    assert both.prompts is not None
    iou = []
    for before, after in zip(pair[0], both.prompts[0], strict=True):
        old, new = (segmenter.predict(noise(), [[p]])[0].masks for p in (before, after))
        iou.append(float((old & new).sum() / (old | new).sum()))
    assert sum(iou) / 2 < float(both.losses.min()) - 1e-3  # no single draw was the worst for both


@pytest.mark.parametrize("attack", ATTACKS, ids=IDS)
def test_the_image_stays_and_only_handles_move(attack: Attack) -> None:
    result = attack.run(tiny("sam"), noise(2, 24, 40), MIXED, threat=Threat(norm="shift", eps=5), seeds=[1, 2])
    assert torch.equal(result.images, to_uint8(noise(2, 24, 40))) and result.prompts is not None
    for old, new in zip(MIXED, result.prompts, strict=True):
        assert all(shift(a, b) <= 5 + 1e-6 for a, b in zip(old, new, strict=True))
        for prompt in new:
            prompt.check(24, 40)
    assert result.prompts[1][1] is MIXED[1][1] and 0 < result.budget[0].shift <= 5 + 1e-6


@pytest.mark.parametrize("attack", ATTACKS, ids=IDS)
def test_without_a_radius_nothing_moves(attack: Attack) -> None:
    result = attack.run(tiny("sam"), noise(2, 24, 40), MIXED, threat=Threat(norm="shift", eps=0))
    assert result.prompts is not None and [b.shift for b in result.budget] == [0.0, 0.0]
    for old, new in zip(MIXED, result.prompts, strict=True):
        assert all((a.points, a.box) == (b.points, b.box) for a, b in zip(old, new, strict=True))


@pytest.mark.parametrize("attack", ATTACKS, ids=IDS)
def test_a_prompt_without_handles_is_said_to_stand_still(attack: Attack) -> None:
    prior = [[mask(np.eye(32, dtype=bool))]]
    result = attack.run(tiny("sam"), noise(), prior, threat=Threat(norm="shift", eps=5))
    assert result.flags == (STILL,) and result.budget[0].shift == 0


def test_an_image_whose_prompts_are_all_lost_stops() -> None:
    threat = Threat(norm="shift", eps=14)
    clicks = [[point(16, 16)], [point(16, 16)]]
    for attack in (PromptShift(samples=60, stop_at=0.5), PromptShiftGradient(steps=20, random_start=True, stop_at=0.5)):
        result = attack.run(disc_model(2.0), noise(2), clicks, threat=threat, seeds=[1, 2])
        assert all(steps < attack_steps(attack) for steps in result.steps)
        assert result.losses[max(result.steps) + 1 :].isnan().all()
    with_limit = PromptShift(samples=60).run(disc_model(), noise(), clicks[:1], threat=replace(threat, queries=11))
    assert with_limit.queries == (11,) and with_limit.losses.shape == (11, 1)


def attack_steps(attack: Attack) -> int:
    return int(getattr(attack, "samples", 0) or getattr(attack, "steps", 0))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_place_is_pulled_back_inside(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(2, 30)), data.draw(st.integers(2, 30))
    inside = st.floats(0, 1, exclude_max=True)
    x0, x1 = sorted(data.draw(st.tuples(inside, inside).filter(lambda p: abs(p[0] - p[1]) > 1e-3)))
    y0, y1 = sorted(data.draw(st.tuples(inside, inside).filter(lambda p: abs(p[0] - p[1]) > 1e-3)))
    spot = ((width - 1) * data.draw(inside), (height - 1) * data.draw(inside))
    prompt = Prompt(points=(spot,), labels=(1,), box=(x0 * width, y0 * height, x1 * width, y1 * height))
    eps = data.draw(st.floats(0, 40))
    home, (low, high) = pipeline.handles_of(prompt), limits(prompt, height, width)
    moves = Moves(
        task=Task(segmenter=None, clean=noise(), prompts=[[prompt]], threat=Threat(norm="shift", eps=eps)),  # type: ignore[arg-type]
        encoding=None, home=[home], low=[low], high=[high], owner=[0],  # type: ignore[arg-type]
    )  # fmt: skip
    wild = home + 100 * disc(3, torch.Generator().manual_seed(data.draw(st.integers(0, 999))))
    after = moved(prompt, moves.confine([wild])[0])  # a Prompt refuses an empty box
    after.check(height, width)
    assert shift(prompt, after) <= eps * (1 + 1e-9) + 1e-9


def test_draws_are_uniform_in_the_disc() -> None:
    length = disc(4000, torch.Generator().manual_seed(0)).norm(dim=1)
    assert float(length.max()) <= 1 and float((length < 0.5).double().mean()) == pytest.approx(0.25, abs=0.03)


def test_what_cannot_be_meant_is_refused() -> None:
    threat = Threat(norm="shift", eps=3)
    with pytest.raises(InputError, match="original pixels"):
        PromptShift().run(tiny("sam"), noise(), [[point(3, 3)]], threat=replace(threat, space="model"))
    for name, option in (("prompt-shift", "samples"), ("prompt-shift-gradient", "steps")):
        with pytest.raises(InputError, match=f"0 {option}"):
            registry.create("attack", name, **{option: 0}).run(tiny("sam"), noise(), [[point(3, 3)]], threat=threat)
