"""Attack-SAM, Attack-SAM-K, S-RA, T-RA and SegPGD on a model whose masks can be computed by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from redsam.attacks.attack_sam import AttackSAM, clip_target, enlarge_mse, moved, vanish_mse
from redsam.attacks.attack_sam_k import AttackSAMK, random_points
from redsam.attacks.clicks import Clicks
from redsam.attacks.pgd import PGD
from redsam.attacks.segpgd import SegPGD
from redsam.attacks.sra import SRA, grid_over
from redsam.attacks.task import Task
from redsam.attacks.tra import TRA
from redsam.errors import InputError
from redsam.models import tiny
from redsam.objectives import enlarge, vanish
from redsam.prompts import Prompt, point
from redsam.threat import Threat
from redsam.types import from_uint8

SIDE = 16
PROMPTS: list[list[Prompt]] = [[point(3, 3)]]


def grey(seed: int = 0) -> Tensor:
    """Grey levels within 8 of the toy's threshold of 127.5, so that a budget of 16 reaches any mask."""
    generator = torch.Generator().manual_seed(seed)
    return from_uint8(torch.randint(120, 136, (1, 1, SIDE, SIDE), generator=generator, dtype=torch.uint8)).repeat(
        1, 3, 1, 1
    )


def square(top: int, left: int, side: int = 4) -> Tensor:
    out = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    out[:, top : top + side, left : left + side] = True
    return out


def mask_of(model: Any, images: Tensor) -> Tensor:
    return model.predict(from_uint8(images), PROMPTS)[0].masks


WIDE = Threat(eps=24 / 255)


# --- Attack-SAM ----------------------------------------------------------------------------------------------------
def test_clip_target_is_zero_with_zero_gradient_beyond_the_thresholds() -> None:
    target = square(2, 2)
    logits = torch.where(target, 11.0, -12.0).requires_grad_(True)
    loss = clip_target(logits, target)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert float(loss.detach()) == 0 and not gradient.any()
    assert float(clip_target(torch.zeros(1, SIDE, SIDE), target)) == pytest.approx(100.0)
    one = torch.where(target, 10.0, -10.0)
    one[0, 0, 0] = 5.0  # outside, and 15 above where it should be
    assert float(clip_target(one, target)) == pytest.approx(15**2 / SIDE**2)


@pytest.mark.parametrize(("goal", "clipped", "plain", "bound"), [
    ("vanish", vanish, vanish_mse, -10.0), ("enlarge", enlarge, enlarge_mse, 10.0)
])  # fmt: skip
def test_plain_mse_pulls_back_what_is_far_enough(
    toy_class: Any, goal: Any, clipped: Any, plain: Any, bound: float
) -> None:
    nothing = torch.zeros(1, 1, 2, dtype=torch.bool)
    logits = torch.tensor([[[2 * bound, 0.0]]], requires_grad=True)
    losses = (clipped(logits, nothing), plain(logits, nothing))
    slopes = [torch.autograd.grad(loss.sum(), logits)[0].flatten().tolist() for loss in losses]
    assert slopes == [[0.0, -bound], [bound, -bound]]
    assert float(plain(logits, nothing)) == pytest.approx(100.0) and float(clipped(logits, nothing)) == 50.0
    model = toy_class(side=SIDE)
    with torch.no_grad():
        start = model.decode(model.encode(grey()), PROMPTS).logits()[0]
    for chosen, loss in ((True, clipped), (False, plain)):
        found = AttackSAM(goal=goal, clipped=chosen, random_start=False).run(model, grey(), PROMPTS, threat=WIDE)
        assert float(found.losses[0, 0]) == pytest.approx(float(loss(start, start > 0)), rel=1e-5)
    with pytest.raises(InputError, match="clipped logits only"):
        AttackSAM(goal="flip", clipped=False)


@pytest.mark.parametrize(("goal", "area"), [("vanish", 0), ("enlarge", SIDE**2)])
def test_a_mask_vanishes_or_fills_the_image(toy_class: Any, goal: Any, area: int) -> None:
    model = toy_class(side=SIDE)
    result = AttackSAM(goal=goal).run(model, grey(), PROMPTS, threat=Threat(eps=9 / 255))
    assert int(mask_of(model, result.images).sum()) == area


@pytest.mark.parametrize("goal", ["shift", "flip"])
def test_a_mask_is_moved_or_mirrored(toy_class: Any, goal: Any) -> None:
    model = toy_class(side=SIDE)
    image = torch.where(square(1, 2)[:, None], 132.0, 122.0).repeat(1, 3, 1, 1).to(torch.uint8)
    expected = square(5, 6) if goal == "shift" else square(1, 10)
    result = AttackSAM(goal=goal, steps=12).run(model, from_uint8(image), PROMPTS, threat=WIDE)
    assert torch.equal(mask_of(model, result.images), expected)


def test_a_mask_moves_to_the_side_with_more_room() -> None:
    assert torch.equal(moved(square(1, 2), 0.25), square(5, 6))
    assert torch.equal(moved(square(11, 2), 0.25), square(7, 6))
    assert torch.equal(moved(square(11, 10), 0.5), square(3, 2))
    assert int(moved(square(4, 4, side=10), 0.5).sum()) == 6 * 6  # what leaves the image is lost


def test_a_target_comes_from_a_file_or_as_the_reference(toy_class: Any, tmp_path: Path) -> None:
    model, target, path = toy_class(side=SIDE), square(3, 9), tmp_path / "target.png"
    Image.fromarray((target[0].numpy() * 255).astype(np.uint8)).save(path)
    by_path = AttackSAM(goal="given", mask=str(path), stop_at=1.0, steps=20)
    result = by_path.run(model, grey(), PROMPTS, threat=WIDE)
    assert torch.equal(mask_of(model, result.images), target) and result.steps[0] < 20
    again = AttackSAM(goal="given", stop_at=1.0, steps=20)
    other = again.run(model, grey(), PROMPTS, threat=WIDE, reference=[target])
    assert torch.equal(other.images, result.images)


def test_bad_targets_are_one_line(toy_class: Any, tmp_path: Path) -> None:
    model = toy_class(side=SIDE)
    small, broken = tmp_path / "small.png", tmp_path / "broken.png"
    Image.new("L", (20, 10)).save(small)
    broken.write_bytes(b"no picture")

    def refused(attack: AttackSAM, **rest: Any) -> str:
        with pytest.raises(InputError) as caught:
            attack.run(model, grey(), PROMPTS, threat=WIDE, **rest)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "20 x 10" in (said := refused(AttackSAM(goal="given", mask=str(small)))) and "16 x 16" in said
    assert "cannot be read" in refused(AttackSAM(goal="given", mask=str(broken)))
    assert "cannot be read" in refused(AttackSAM(goal="given", mask=str(tmp_path / "none.png")))
    assert "target mask" in refused(AttackSAM(goal="given"))
    wrong = torch.zeros(1, 10, 20, dtype=torch.bool)
    assert "16 x 16" in (said := refused(AttackSAM(goal="given"), reference=[wrong])) and "10, 20" in said
    for bad in ({"goal": "vanisch"}, {"mask": "x.png"}, {"share": 0.0}, {"share": 1.0}):
        with pytest.raises(InputError):
            AttackSAM(**bad)  # type: ignore[arg-type]


# --- Attack-SAM-K --------------------------------------------------------------------------------------------------
def task(model: Any, images: Tensor, **rest: Any) -> Task:
    return Task(segmenter=model, clean=images, prompts=PROMPTS * len(images), seeds=list(range(len(images))), **rest)


def test_k_points_are_distinct_pixels_drawn_from_each_images_seed(toy_class: Any) -> None:
    images = grey().repeat(2, 1, 1, 1)[..., :7]
    both = random_points(task(toy_class(), images), 60)
    assert [len(p) for p in both] == [1, 1]
    for (prompt,) in both:
        prompt.check(SIDE, 7)
        assert len(set(prompt.points)) == 60 and set(prompt.labels) == {1}
    assert both[0][0].points != both[1][0].points
    assert random_points(task(toy_class(), images).subset([1]), 60)[0][0].points == both[1][0].points
    everything = random_points(task(toy_class(), images), SIDE * 7)
    assert {(x, y) for x, y in everything[0][0].points} == {(x, y) for x in range(7) for y in range(SIDE)}


@pytest.mark.parametrize("count", [0, -1, SIDE**2 + 1])
def test_k_must_lie_between_one_and_the_pixels(toy_class: Any, count: int) -> None:
    with pytest.raises(InputError, match="256 pixels"):
        AttackSAMK(samples=count).run(toy_class(side=SIDE), grey(), PROMPTS, threat=WIDE)


def test_attack_sam_k_needs_no_prompt_and_removes_the_masks_of_others(toy_class: Any) -> None:
    model = toy_class(side=SIDE)
    result = AttackSAMK(samples=9).run(model, grey(), [[]], threat=WIDE)
    assert not mask_of(model, result.images).any()
    stopped = AttackSAMK(samples=9, stop_at=0.0).run(model, grey(), PROMPTS, threat=WIDE)
    assert stopped.steps[0] < 40 and not mask_of(model, stopped.images).any()


# --- S-RA, T-RA ----------------------------------------------------------------------------------------------------
def test_the_grid_covers_the_region_and_nothing_else() -> None:
    size = SIDE, SIDE
    assert [p.points[0] for p in grid_over(square(2, 4, side=6), 2, size)] == [(5, 3), (8, 3), (5, 6), (8, 6)]
    ring = square(2, 4, side=6) & ~square(3, 5, side=4)
    assert grid_over(ring, 1, size)[0].points[0] in {(9, 5), (7, 7)}  # nearest to the middle, which is a hole
    clicks = grid_over(ring, 5, size)
    assert clicks and all(ring[0, int(p.points[0][1]), int(p.points[0][0])] for p in clicks)
    both = torch.cat([square(0, 0), square(12, 12)])
    assert {p.points[0] for p in grid_over(both, 4, size)} == {(2, 2), (14, 14)}
    assert len(grid_over(torch.zeros(1, SIDE, SIDE, dtype=torch.bool), 3, size)) == 9
    assert len(grid_over(square(5, 5, side=1), 5, size)) == 1  # one pixel, one click


def test_all_masks_of_all_clicks_count(toy_class: Any) -> None:
    """The toy's three masks have gains 1, 0.5 and 2."""
    model, image = toy_class(side=SIDE, gain=4.0), grey()
    logits = 4.0 * (image[0].mean(0) - 0.5)
    expected = sum(float((g * logits + 10).square().mean()) for g in (1.0, 0.5, 2.0)) / 3
    evaluate = Clicks(task=task(model, image), prompts=[[point(1, 1), point(5, 5)]], select="every")
    assert float(evaluate(image, [0], 0.0).rank[0]) == pytest.approx(expected, rel=1e-5)
    first = replace(evaluate, select="iou")(image, [0], 0.0).rank[0]
    assert float(first) == pytest.approx(float((logits + 10).square().mean()), rel=1e-5)


@pytest.mark.parametrize("attack", [SRA(steps=20), TRA(steps=20, samples=2)], ids=["s-ra", "t-ra"])
def test_region_attacks_empty_the_mask(toy_class: Any, attack: SRA) -> None:
    model = toy_class(side=SIDE)
    result = attack.run(model, grey(), PROMPTS, threat=WIDE)
    assert not mask_of(model, result.images).any()
    assert result.gradients == 20 * (2 if isinstance(attack, TRA) else 1)


def test_t_ra_ranks_the_iterates_themselves_when_it_keeps_the_best() -> None:
    model = tiny("sam", image_size=32)
    image = from_uint8(torch.randint(0, 256, (1, 3, 24, 32), dtype=torch.uint8,
                                     generator=torch.Generator().manual_seed(1)))  # fmt: skip
    runs = [TRA(steps=3, samples=2, grid=2, keep_best=k).run(model, image, PROMPTS, threat=Threat()) for k in (0, 1)]
    plain = SRA(steps=3, grid=2).run(model, image, PROMPTS, threat=Threat())
    assert torch.equal(runs[1].losses[0], plain.losses[0]) and not torch.equal(runs[0].losses[0], plain.losses[0])


# --- SegPGD --------------------------------------------------------------------------------------------------------
def test_segpgd_turns_correct_pixels_first(toy_class: Any) -> None:
    """At the start wrong pixels have no weight, so they stay where they are; plain cross-entropy moves them too."""
    model, image = toy_class(side=SIDE), grey()
    reference = model.predict(image, PROMPTS)[0].masks.clone()
    reference[:, :4] = ~reference[:, :4]  # the answer is wrong there before any attack

    def step(objective: str) -> Tensor:
        attack = PGD(objective=objective, steps=1, random_start=False, keep_best=False)
        return attack.run(model, image, PROMPTS, threat=Threat(), reference=[reference]).images

    assert torch.equal(step("segpgd")[:, :, :4], (image * 255).round().to(torch.uint8)[:, :, :4])
    assert (step("bce")[:, :, :4] != step("segpgd")[:, :, :4]).all()


def test_segpgd_is_pgd_on_its_objective(toy_class: Any) -> None:
    model, threat = toy_class(side=SIDE), Threat(eps=4 / 255)
    ours = SegPGD(steps=5).run(model, grey(), PROMPTS, threat=threat, seeds=[3])
    pgd = PGD(objective="segpgd", steps=5, step_size=0.005).run(model, grey(), PROMPTS, threat=threat, seeds=[3])
    assert torch.equal(ours.images, pgd.images)
