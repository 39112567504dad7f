"""`Attack.run`: what it refuses, what it delivers, and effects that can be computed by hand on the toy model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from redsam.attacks.apgd import APGD
from redsam.attacks.bim import BIM
from redsam.attacks.fgsm import FGSM
from redsam.attacks.goal import Goal
from redsam.attacks.gradient import GradientAttack
from redsam.attacks.loop import Parts
from redsam.attacks.mifgsm import MIFGSM
from redsam.attacks.parts import zero
from redsam.attacks.pgd import PGD
from redsam.attacks.task import Task
from redsam.errors import BudgetViolation, RedsamError
from redsam.models import tiny
from redsam.models.resample import resize
from redsam.prompts import Prompt, box, point
from redsam.registry import _entries, get, register
from redsam.threat import Threat
from redsam.types import from_uint8, to_uint8

SIDE = 16
LINF: list[GradientAttack] = [FGSM(), BIM(), PGD(steps=12), MIFGSM(), APGD(steps=12)]
IDS = [type(a).__name__ for a in LINF]


def ramp() -> Tensor:
    """Grey levels 0..255 over the 256 pixels: with the toy's bias -0.5 the mask is the 128 brightest."""
    return from_uint8(torch.arange(256, dtype=torch.uint8).view(1, 1, SIDE, SIDE).repeat(1, 3, 1, 1))


def prompts(count: int = 1) -> list[list[Prompt]]:
    return [[point(3, 3), box(1, 1, 9, 9)] for _ in range(count)]


def iou(a: Tensor, b: Tensor) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("attack", LINF, ids=IDS)
def test_the_mask_shrinks_by_exactly_the_levels_the_budget_buys(toy_class: Any, attack: GradientAttack) -> None:
    model, image = toy_class(side=SIDE), ramp()
    for levels in (1, 8, 32):
        result = attack.run(model, image, prompts(), threat=Threat(eps=levels / 255))
        before = model.predict(image, prompts())[0].masks[0]
        after = model.predict(from_uint8(result.images), prompts())[0].masks[0]
        assert int(before.sum()) == 128
        assert iou(before, after) == (128 - levels) / 128  # every pixel went down by `levels`, none could do more
        assert result.budget[0].linf == levels / 255


def test_enlarging_grows_it_by_as_much(toy_class: Any) -> None:
    model, image = toy_class(side=SIDE), ramp()
    result = PGD(objective="enlarge", steps=12).run(model, image, prompts(), threat=Threat(eps=8 / 255))
    assert int(model.predict(from_uint8(result.images), prompts())[0].masks[0].sum()) == 136


def test_a_target_mask_is_reached_and_the_attack_stops_there(toy_class: Any) -> None:
    model = toy_class(side=SIDE)
    image = from_uint8(torch.randint(120, 136, (1, 3, SIDE, SIDE), dtype=torch.uint8,
                                     generator=torch.Generator().manual_seed(0)))  # fmt: skip
    target = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    target[:, 4:12, 4:12] = True
    result = PGD(objective="mse", stop_at=1.0, steps=40).run(
        model, image, [[point(8, 8)]], threat=Threat(eps=24 / 255), reference=[target]
    )
    assert torch.equal(model.predict(from_uint8(result.images), [[point(8, 8)]])[0].masks, target)
    assert result.steps[0] < 40 and result.flags == ("",)


def test_stopping_at_an_iou_saves_gradients_of_that_image_only(toy_class: Any) -> None:
    model = toy_class(side=SIDE)
    dim = from_uint8(torch.full((1, 3, SIDE, SIDE), 130, dtype=torch.uint8))
    images = torch.cat([dim, ramp()])
    result = PGD(stop_at=0.0, steps=20, random_start=False).run(model, images, prompts(2), threat=Threat(eps=8 / 255))
    assert result.steps == (2, 20)  # steps of 2 levels: 130 is at most 127 after two
    assert result.losses[3:, 0].isnan().all() and not result.losses[:, 1].isnan().any()
    assert result.gradients == 3 + 20 and result.budget[0].linf == 4 / 255
    assert not model.predict(from_uint8(result.images), prompts(2))[0].masks.any()


def test_many_prompts_cost_one_encoder_pass_a_step(toy_class: Any) -> None:
    model = toy_class(side=SIDE)
    crowd = [[point(x, y) for x in range(3) for y in range(3)]]
    PGD(steps=5).run(model, ramp(), crowd, threat=Threat(eps=8 / 255))
    assert model.encoded == 5 + 1  # vanish is blind to the reference: no clean pass either


def test_losses_of_an_image_are_the_mean_over_its_prompts(toy_class: Any) -> None:
    model, images = toy_class(side=SIDE), torch.cat([ramp(), ramp()])
    references = [torch.zeros(2, SIDE, SIDE, dtype=torch.bool), torch.ones(1, SIDE, SIDE, dtype=torch.bool)]
    both = [[point(1, 1), point(2, 2)], [point(3, 3)]]
    result = FGSM(objective="bce").run(model, images, both, threat=Threat(), reference=references)
    logits = model.predict(images, both)[0].logits[0]
    expected = [-torch.nn.functional.softplus(s * logits).mean() for s in (1, -1)]
    assert torch.allclose(result.losses[0], torch.stack(expected), rtol=1e-4)


@pytest.mark.parametrize(("region", "changed"), [("object", 128), ("background", 128), ("all", 256)])
def test_pixels_outside_the_region_do_not_change(toy_class: Any, region: Any, changed: int) -> None:
    model, image = toy_class(side=SIDE), from_uint8(to_uint8(ramp()).clamp(10, 245))
    result = PGD(steps=8).run(model, image, prompts(), threat=Threat(eps=8 / 255, region=region))
    assert result.budget[0].l0 == changed
    mask = model.predict(image, prompts())[0].masks.any(0)
    moved = (result.images != to_uint8(image)).any(1)[0]
    goal = Goal(task=Task(segmenter=model, clean=image, prompts=prompts()), objective=get("objective", "vanish"))
    # What was searched is what was delivered: the loop too kept to the region.
    assert torch.allclose(goal(from_uint8(result.images), [0], 1.0).rank, result.losses[-1], rtol=1e-4)
    if region != "all":
        assert torch.equal(moved, mask if region == "object" else ~mask)


def test_the_attacked_mask_is_the_selected_one(toy_class: Any) -> None:
    """The toy's masks have gains 1, 0.5, 2; predicted IoU prefers the first, a tie in area goes to the first too."""
    model, image = toy_class(side=SIDE, gain=4.0), ramp()
    losses = {
        select: FGSM(select=select).run(model, image, [[point(1, 1)]], threat=Threat()).losses[0, 0]
        for select in ("iou", "single", "area")
    }  # type: ignore[arg-type]
    logits = 4.0 * (ramp()[0].mean(0) - 0.5)
    for value in losses.values():
        assert float(value) == pytest.approx(float((logits + 10).square().mean()), rel=1e-5)
    third = [2 * logits[None] > 0]
    best = FGSM(select="best").run(model, image, [[point(1, 1)]], threat=Threat(), reference=third)
    assert best.images.shape == (1, 3, SIDE, SIDE)


@pytest.mark.parametrize("objective", ["feature-l2", "feature-cosine"])
@pytest.mark.parametrize("attack", [FGSM, BIM, PGD, MIFGSM, APGD])
def test_feature_objectives_need_no_prompt_and_move_away_from_the_clean_features(
    toy_class: Any, attack: Any, objective: str
) -> None:
    model, image = toy_class(side=SIDE), from_uint8(to_uint8(ramp()).clamp(60, 200))
    result = attack(objective=objective).run(model, image, [[]], threat=Threat(eps=8 / 255))
    clean, moved = (model.encode(x).features for x in (image, from_uint8(result.images)))
    if objective == "feature-l2":  # every feature may move by gain * eps = 20 * 8 / 255; the optimum is all of them
        assert float((moved - clean).norm()) > 0.6 * 16 * 20 * 8 / 255
    else:
        assert float(torch.nn.functional.cosine_similarity(clean.flatten(), moved.flatten(), dim=0)) < 0.999
    assert result.flags == ("",)


def test_in_the_models_frame_the_budget_holds_there_and_is_reported_here(toy_class: Any) -> None:
    model = toy_class(side=24)
    image = from_uint8(torch.randint(0, 256, (2, 3, 16, 20), dtype=torch.uint8,
                                     generator=torch.Generator().manual_seed(1)))  # fmt: skip
    result = PGD(steps=5).run(model, image, prompts(2), threat=Threat(eps=4 / 255, space="model"))
    assert result.images.shape == (2, 3, 16, 20) and result.images.dtype == torch.uint8
    assert all("model's frame" in flag for flag in result.flags)
    spent = Threat.measure(result.images[0], to_uint8(image)[0])
    assert result.budget[0] == spent and spent.linf > 4 / 255  # resized twice: the original pixels moved further


def test_in_the_models_frame_prompts_keep_original_pixels(toy_class: Any) -> None:
    model, image = toy_class(side=24), ramp()
    reference = [torch.ones(1, SIDE, SIDE, dtype=torch.bool)]
    far = [[point(15, 15)]]  # inside the 16 x 16 image; masks come back in 16 x 16 too
    result = PGD(objective="bce", steps=2).run(model, image, far, threat=Threat(space="model"), reference=reference)
    assert result.losses.isfinite().all()


def test_a_sick_image_does_not_spoil_its_neighbours(toy_class: Any) -> None:
    model = toy_class(side=SIDE, poison=0.9)
    bright = from_uint8(torch.full((1, 3, SIDE, SIDE), 230, dtype=torch.uint8))
    result = PGD(steps=4).run(model, torch.cat([bright, ramp()]), prompts(2), threat=Threat(eps=8 / 255))
    alone = PGD(steps=4).run(toy_class(side=SIDE), ramp(), prompts(), threat=Threat(eps=8 / 255))
    assert result.flags == ("non-finite gradient at step 0", "") and result.steps == (0, 4)
    assert torch.equal(result.images[0], to_uint8(bright)[0])
    assert torch.equal(result.images[1], alone.images[0])


def bad_calls() -> dict[str, tuple[GradientAttack, dict[str, Any], str]]:
    half = torch.ones(1, SIDE, SIDE // 2, dtype=torch.bool)
    return {
        "three dimensions": (PGD(), {"images": ramp()[0]}, "Bx3xHxW"),
        "off the lattice": (PGD(), {"images": ramp() * 0.999}, "lattice"),
        "0..255": (PGD(), {"images": ramp() * 255}, "values span"),
        "nan": (PGD(), {"images": ramp() * float("nan")}, "values span"),
        "prompts of another batch": (PGD(), {"prompts": prompts(2)}, "lists of prompts"),
        "no prompt": (PGD(), {"prompts": [[]]}, "no prompt"),
        "seeds of another batch": (PGD(), {"seeds": [1, 2]}, "seeds"),
        "reference of another size": (PGD(objective="bce"), {"reference": [half]}, "references"),
        "norm not searched": (BIM(), {"threat": Threat(norm="l2", eps=1)}, "does not search in l2"),
        "no gradients allowed": (PGD(), {"threat": Threat(knowledge="score")}, "needs knowledge white-box"),
        "too few queries": (PGD(steps=10), {"threat": Threat(queries=10)}, "at most 9 steps"),
        "no steps": (PGD(steps=0), {}, "0 steps"),
        "unknown objective": (PGD(objective="vanisch"), {}, "vanish"),
    }


@pytest.mark.parametrize("name", list(bad_calls()))
def test_bad_input_is_one_line(toy_class: Any, name: str) -> None:
    attack, changes, said = bad_calls()[name]
    call: dict[str, Any] = {"images": ramp(), "prompts": [[point(3, 3)]], "threat": Threat()} | changes
    with pytest.raises(RedsamError) as caught:
        attack.run(toy_class(side=SIDE), call.pop("images"), call.pop("prompts"), **call)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert not isinstance(caught.value, BudgetViolation)


def test_queries_that_suffice_are_granted(toy_class: Any) -> None:
    result = PGD(steps=10).run(toy_class(side=SIDE), ramp(), prompts(), threat=Threat(queries=11))
    assert result.forwards == 11


def test_a_new_attack_is_one_class_and_the_base_keeps_it_honest(toy_class: Any) -> None:
    @register("attack", "test-wild", norms=("linf",), kind="white-box", knowledge=("white-box",))
    @dataclass(frozen=True, kw_only=True)
    class Wild(GradientAttack):
        """Jumps far out of the ball."""

        def parts(self, threat: Threat) -> Parts:
            return Parts(steps=1, start=zero, rule=lambda g, s: s.x + 50, keep_best=False)

    try:
        result = Wild().run(toy_class(side=SIDE), ramp(), prompts(), threat=Threat(eps=3 / 255))
        assert result.budget[0].linf == 3 / 255
    finally:
        _entries.pop(("attack", "test-wild"))


@pytest.mark.parametrize("family", ["sam", "sam2"])
def test_the_two_frames_agree_on_the_clean_image(family: str) -> None:
    """Whether the image is resized by the attack or by the model, prompts and masks stay in original pixels."""
    model = tiny(family)
    image = from_uint8(torch.randint(0, 256, (1, 3, 37, 90), dtype=torch.uint8,
                                     generator=torch.Generator().manual_seed(2)))  # fmt: skip
    task = Task(
        segmenter=model, clean=image, prompts=[[point(70, 30), box(9, 3, 80, 30)]],
        reference=[torch.arange(37 * 90).view(1, 37, 90).repeat(2, 1, 1) % 7 > 2],
    )  # fmt: skip
    frame, bce = model.frame(37, 90), get("objective", "bce")
    here = Goal(task=task, objective=bce)(image, [0], 0.5).rank
    there = Goal(task=replace(task, frame=frame), objective=bce)(resize(image, frame.content), [0], 0.5).rank
    assert torch.allclose(here, there, rtol=1e-5)
    result = PGD(steps=2).run(model, image, task.prompts, threat=Threat(space="model"))
    assert result.images.shape == image.shape
