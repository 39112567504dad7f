"""FGSM*, FIGA and JSMA: goals, stop rules, which pixels move, and that they are one method."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from redsam.attacks.fgsm_star import FGSMStar
from redsam.attacks.figa import FIGA
from redsam.attacks.jsma import JSMA
from redsam.attacks.sparse import AimedAttack
from redsam.data.images import write_png
from redsam.errors import InputError
from redsam.models import Segmenter, tiny
from redsam.prompts import Prompt, box, point
from redsam.threat import Threat
from redsam.types import from_uint8, to_uint8

SIDE = 8
L0 = Threat(norm="l0", eps=SIDE * SIDE)


def noise(height: int, width: int, count: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return from_uint8(torch.randint(10, 246, (count, 3, height, width), generator=generator, dtype=torch.uint8))


def flat(level: int) -> Tensor:
    return from_uint8(torch.full((1, 3, SIDE, SIDE), level, dtype=torch.uint8))


def ramp() -> Tensor:
    """Grey levels 96 to 159; the toy's mask is the 32 brightest."""
    return from_uint8(torch.arange(96, 160, dtype=torch.uint8).view(1, 1, SIDE, SIDE).repeat(1, 3, 1, 1))


HERE: list[list[Prompt]] = [[point(3, 3)]]


@pytest.mark.parametrize("name", ["tiny", "lab"])
def test_all_pixels_are_fgsm_star_bit_for_bit(name: str, request: pytest.FixtureRequest) -> None:
    model: Segmenter = tiny("sam") if name == "tiny" else request.getfixturevalue("lab")
    images, prompts = noise(40, 56, 2), [[point(20, 20), box(5, 5, 40, 30)], [point(9, 30)]]
    images[0, :, :5], images[0, :, -5:] = 0.0, 1.0  # values that cannot move further
    threat = Threat(eps=3 / 255)  # reached after three of five steps
    plain = FGSMStar(steps=5).run(model, images, prompts, threat=threat)
    for k in (None, 40 * 56):
        focused = FIGA(k=k, steps=5).run(model, images, prompts, threat=threat)
        assert torch.equal(focused.images, plain.images) and torch.equal(focused.losses, plain.losses)
    assert min(spent.l0 for spent in plain.budget) > 2000


@pytest.mark.parametrize("attack", [JSMA(), FIGA(k=1)], ids=["jsma", "figa"])
def test_one_pixel_moves_in_a_step(attack: AimedAttack) -> None:
    """The iterate after n steps is what a run of n steps delivers: consecutive ones differ in one pixel, one level."""
    model, image, threat = tiny("sam", image_size=32), noise(24, 32), replace(L0, eps=700)
    before = to_uint8(image)
    for steps in range(1, 7):
        after = replace(attack, steps=steps).run(model, image, HERE, threat=threat).images
        assert int((after != before).any(1).sum()) == 1
        assert int((after.int() - before.int()).abs().max()) == 1
        before = after


def test_single_values_can_be_the_unit(toy_class: Any) -> None:
    """Red weighs most: the first value of every pixel that is chosen."""
    toy = toy_class(side=SIDE, weight=(0.6, 0.3, 0.1))
    result = FIGA(goal="zero", k=10, unit="value", steps=1).run(toy, ramp(), HERE, threat=L0)
    moved = to_uint8(ramp()).int() - result.images.int()
    assert moved[0, 0].sum() == 10 and moved[0, 1:].abs().sum() == 0
    assert FIGA(goal="zero", k=10, steps=1).run(toy, ramp(), HERE, threat=L0).budget[0].l0 == 10


def test_a_spent_budget_goes_on_with_the_pixels_it_has(toy_class: Any) -> None:
    toy = toy_class(side=SIDE)
    result = FIGA(goal="zero", k=4, steps=12).run(toy, ramp(), HERE, threat=replace(L0, eps=6))
    moved = (to_uint8(ramp()).int() - result.images.int())[0].amax(0)
    assert result.budget[0].l0 == 6 and int((moved > 0).sum()) == 6
    assert int(moved.sum()) == 4 * 12  # four pixels in each step, not fewer once the six are known


def test_pixels_that_cannot_move_are_passed_over(toy_class: Any) -> None:
    """Everything black but one pixel, and the goal is to darken."""
    toy = toy_class(side=SIDE, bias=0.1)
    image = flat(0)
    image[0, :, 5, 2] = 3 / 255
    result = JSMA(goal="zero", steps=5).run(toy, image, HERE, threat=L0)
    assert result.budget[0].l0 == 1 and (result.images == 0).all()


def test_what_can_move_by_less_than_half_a_level_is_passed_over(toy_class: Any) -> None:
    """0.4 of a level is left of the budget after one step, and rounding takes it back."""
    result = FIGA(goal="zero", k=1, steps=6).run(toy_class(side=SIDE), ramp(), HERE, threat=Threat(eps=1.4 / 255))
    assert result.budget[0].l0 == 6 and result.budget[0].linf == 1 / 255


# --- goals -----------------------------------------------------------------------------------------------------------
def test_zero_stops_when_under_a_hundredth_is_masked(toy_class: Any) -> None:
    toy = toy_class(side=SIDE)
    image = flat(130)
    image[0, :, 0, 0] = 1.0
    result = FGSMStar(goal="zero").run(toy, image, HERE, threat=Threat(eps=25 / 255))
    assert result.steps == (25,) and (to_uint8(image) - result.images).max() == 25  # 1 / 64 of the image is too much
    result = FGSMStar(goal="zero").run(toy, flat(130), HERE, threat=Threat(eps=25 / 255))
    assert result.steps == (3,) and (result.images == 127).all()
    result = FGSMStar(goal="zero", stop_at=0.02).run(toy, image, HERE, threat=Threat(eps=25 / 255))
    assert result.steps == (3,)


def test_reverse_ends_when_nothing_of_the_clean_mask_is_left(toy_class: Any) -> None:
    toy = toy_class(side=SIDE, gain=5.0)
    image = ramp()
    image = from_uint8((to_uint8(image).int() // 8 + 112).to(torch.uint8))  # 124 to 131, in steps of 8 pixels
    clean = toy.predict(image, HERE, select="single")[0].masks
    result = FGSMStar().run(toy, image, HERE, threat=Threat(eps=25 / 255))
    after = toy.predict(from_uint8(result.images), HERE, select="single")[0].masks
    assert not (after & clean).any() and (after | clean).all()
    assert result.steps[0] < 25 and result.budget[0].linf == result.steps[0] / 255


def test_custom_reaches_a_mask_from_a_file(toy_class: Any, tmp_path: Path) -> None:
    toy, target = toy_class(side=SIDE), torch.zeros(SIDE, SIDE, dtype=torch.bool)
    target[2:6, 2:6] = True
    write_png(tmp_path / "target.png", target.byte() * 255)
    attack = FGSMStar(goal="custom", target=str(tmp_path / "target.png"))
    result = attack.run(toy, flat(120), HERE, threat=Threat(eps=25 / 255))
    assert torch.equal(toy.predict(from_uint8(result.images), HERE, select="single")[0].masks[0], target)
    assert result.steps == (8,)  # 120 to 128
    write_png(tmp_path / "small.png", target[:4].byte() * 255)
    with pytest.raises(InputError) as caught:
        replace(attack, target=str(tmp_path / "small.png")).run(toy, flat(120), HERE, threat=Threat())
    assert "8 x 4" in str(caught.value) and "8 x 8" in str(caught.value)


def test_the_threat_is_the_only_ball(toy_class: Any) -> None:
    free = FGSMStar(goal="zero").run(toy_class(side=SIDE), flat(200), HERE, threat=Threat(eps=1))
    bound = FGSMStar(goal="zero").run(toy_class(side=SIDE), flat(200), HERE, threat=Threat(eps=4 / 255))
    assert free.budget[0].linf == 25 / 255 and bound.budget[0].linf == 4 / 255


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        (FIGA(k=0), "nothing would change"),
        (FIGA(k=65), "the image has 64 pixels"),
        (FIGA(k=193, unit="value"), "the image has 192 values"),
        (FIGA(k=1.5), "64 pixels"),
        (FIGA(unit="voxel"), "voxel"),  # type: ignore[arg-type]
        (FGSMStar(goal="custom"), "target"),
        (FGSMStar(goal="upside"), "upside"),  # type: ignore[arg-type]
        (FGSMStar(steps=0), "0 steps"),
    ],
)
def test_bad_options_are_one_line(toy_class: Any, attack: AimedAttack, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        attack.run(toy_class(side=SIDE), ramp(), HERE, threat=Threat())
    assert "\n" not in str(caught.value)
