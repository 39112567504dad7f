"""RGA: its map, its transformation, its copies and its switches, against drawings and closed forms."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from redsam.attacks import rga as module
from redsam.attacks.loop import Evaluation, State
from redsam.attacks.region_map import dilate, paint, painting_order
from redsam.attacks.rga import RGA, copies_gradient, draw_similarity, similarity
from redsam.attacks.task import Task
from redsam.errors import InputError
from redsam.models import Segmenter, tiny
from redsam.models.automatic import MaskSet
from redsam.prompts import point
from redsam.threat import Threat
from redsam.types import from_uint8

BLACK = (0.0, 0.0, 0.0)
QUICK: dict[str, Any] = {"steps": 3, "grid": 3}


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(height: int = 24, width: int = 32, seed: int = 0) -> Tensor:
    return from_uint8(torch.randint(0, 256, (1, 3, height, width), generator=random(seed), dtype=torch.uint8))


def mask_set(masks: Tensor, stability: list[float]) -> MaskSet:
    k = len(masks)
    return MaskSet(
        masks=masks, boxes=torch.zeros(k, 4), iou=torch.linspace(0.9, 0.8, k), stability=torch.tensor(stability),
        points=torch.zeros(k, 2),
    )  # fmt: skip


@pytest.fixture(scope="module")
def sam() -> Segmenter:
    return tiny("sam", image_size=32)


# --- the map -------------------------------------------------------------------------------------------------------
# 8 x 12 pixels in cells of 3 (grid_rate 0.4). "a" and "b" are single pixels in columns 1 and 2 of row 1, grown by 1 (43
# dilations at 12 pixels: 2 * 43 * 12 / 1024 = 1.008). The large mask covers rows 4 to 7 from column 2 on, and the other
# marks are cells of the grid. "." is black.
A_FIRST = [
    "aaab........",
    "aaab........",
    "aaab........",
    "............",
    "..4555666777",
    "..4555666777",
    "..8999ccceee",
    "..8999ccceee",
]
B_FIRST = [row.replace("aaab", "abbb") for row in A_FIRST]
# Each cell's place, row by row from 0.
CELLS = {"4": 4, "5": 5, "6": 6, "7": 7, "8": 8, "9": 9, "c": 10, "e": 11}


def hand_made() -> Tensor:
    """The masks of the drawing: a, the large one, b."""
    masks = torch.zeros(3, 8, 12, dtype=torch.bool)
    masks[0, 1, 1] = True
    masks[1, 4:8, 2:12] = True
    masks[2, 1, 2] = True
    return masks


@pytest.mark.parametrize("drawing, order", [(A_FIRST, None), (A_FIRST, [0, 1, 2]), (B_FIRST, [2, 0, 1])])
def test_the_map_of_hand_made_masks_is_the_drawing(drawing: list[str], order: list[int] | None) -> None:
    g = random(7)
    first, second = (torch.randint(1, 256, (1, 3), generator=g)[0] for _ in range(2))
    cells = torch.randint(1, 256, (12, 3), generator=g)  # 3 rows of 4 cells
    colours = {".": torch.zeros(3, dtype=torch.int64)} | {mark: cells[i] for mark, i in CELLS.items()}
    colours |= {"a": first, "b": second} if drawing is A_FIRST else {"b": first, "a": second}
    want = torch.stack([torch.stack([colours[mark] for mark in row], 1) for row in drawing], 1)
    found = paint(hand_made(), random(7), order=order, grid_rate=0.4, dilations=43)
    assert found.dtype == torch.float32 and torch.equal(found, want.float() / 255)


def test_without_masks_the_grid_covers_the_whole_image() -> None:
    found = paint(torch.zeros(0, 8, 12, dtype=torch.bool), random(), grid_rate=0.4)
    assert (found > 0).all() and len(found.flatten(1).T.unique(dim=0)) == 12


def test_small_is_what_fits_into_one_cell_and_dilations_follow_the_image() -> None:
    masks = torch.zeros(1, 100, 200, dtype=torch.bool)
    masks[0, 40:50, 100:110] = True  # exactly 10 x 10, the cell at grid_rate 0.1
    grown = paint(masks, random()).any(0)
    reach = round(100 * 200 / 1024)
    assert int(grown.sum()) == (10 + 2 * reach) ** 2
    masks[0, 40, 110] = True  # one pixel more, and it is large: cut by the grid, not dilated
    assert torch.equal(paint(masks, random()).any(0), masks[0])


@pytest.mark.parametrize("radius", [0, 1, 3, 40])
def test_dilation_agrees_with_scipy(radius: int) -> None:
    mask = torch.rand(17, 23, generator=random(1)) > 0.98
    want = ndimage.binary_dilation(mask.numpy(), np.ones((2 * radius + 1,) * 2, dtype=bool))
    assert np.array_equal(dilate(mask, radius).numpy(), want)
    five = ndimage.binary_dilation(mask.numpy(), np.ones((5, 5), dtype=bool), iterations=3)
    assert np.array_equal(dilate(mask, 6).numpy(), five)  # 3 of the published dilations


def test_overlap_rules_order_the_masks() -> None:
    found = mask_set(hand_made()[[1, 0, 2]], [0.95, 0.96, 0.99])
    assert painting_order(found, "first") == [0, 1, 2]
    assert painting_order(found, "small-first") == [1, 2, 0]  # ties keep the generator's order
    assert painting_order(found, "confident-first") == [2, 1, 0]
    with pytest.raises(InputError, match="largest"):
        painting_order(found, "largest")  # type: ignore[arg-type]


def test_the_map_comes_from_the_automatic_masks_and_the_seed(sam: Segmenter, monkeypatch: Any) -> None:
    asked: list[dict[str, Any]] = []

    def found(segmenter: Segmenter, image: Tensor, **args: Any) -> MaskSet:
        asked.append(args | {"shape": tuple(image.shape)})
        return mask_set(hand_made(), [0.9, 0.9, 0.99])

    monkeypatch.setattr(module, "automatic_masks", found)
    task = Task(segmenter=sam, clean=picture(8, 12), prompts=[[]], seeds=[3])
    options = {"grid_rate": 0.4, "dilations": 43}
    one, again = (RGA(**options).region_map(task, 0) for _ in range(2))
    assert torch.equal(one, again)
    thresholds = {"pred_iou_thresh": 0.88, "stability_score_thresh": 0.95}
    assert asked[0] == thresholds | {"points_per_side": 64, "shape": (3, 8, 12)}
    other = RGA(**options).region_map(replace(task, seeds=[4]), 0)
    assert not torch.equal(one, other) and torch.equal(one > 0, other > 0)
    last = RGA(**options, overlap="confident-first").region_map(task, 0)
    assert torch.equal(last[:, 0, 1], last[:, 0, 3]) and torch.equal(one[:, 0, 1], one[:, 0, 0])


# --- the transformation --------------------------------------------------------------------------------------------
def move(images: Tensor, x: float = 0, y: float = 0, angle: float = 0, scale: float = 1) -> Tensor:
    one = [torch.tensor([v], dtype=torch.float64) for v in (angle, scale)]
    return similarity(images, torch.tensor([[x, y]], dtype=torch.float64), *one, BLACK)


def test_zero_parameters_are_the_identity() -> None:
    images = picture().double()
    assert torch.allclose(move(images), images, atol=1e-12)
    assert torch.allclose(draw_similarity([random()], 0.0, BLACK)(images), images, atol=1e-6)


def test_a_shift_moves_a_pixel() -> None:
    images = torch.zeros(1, 3, 9, 15, dtype=torch.float64)
    images[0, :, 4, 10] = 1
    moved = move(images, x=3, y=-2)  # a value comes from 3 to the right and 2 up, so it appears 3 left and 2 down
    assert torch.allclose(moved[0, :, 6, 7], torch.ones(3, dtype=torch.float64))
    assert float(moved.sum()) == pytest.approx(3)


def test_a_quarter_turn_is_exact_in_pixels() -> None:
    """On a picture that is no square a rotation of normalised coordinates would shear."""
    images = torch.zeros(1, 3, 11, 21, dtype=torch.float64)
    images[0, :, 5, 13] = 1  # 3 right of the centre
    turned = move(images, angle=math.pi / 2)
    assert float(turned[0, 0, 2, 10]) == pytest.approx(1) and float(turned.sum()) == pytest.approx(3)


@pytest.mark.parametrize("x, y, angle, scale", [(1.3, -0.7, 0.2, 1.0), (0, 0, -0.4, 0.9), (2.5, 1.5, 0.05, 1.1)])
def test_it_agrees_with_scipy(x: float, y: float, angle: float, scale: float) -> None:
    images = torch.rand(1, 3, 17, 25, generator=random(), dtype=torch.float64)
    found = move(images, x, y, angle, scale)[0].numpy()
    rotation = scale * np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])  # (y, x)
    centre = np.array([8.0, 12.0])
    offset = centre + np.array([y, x]) - rotation @ centre
    for channel in range(3):
        want = ndimage.affine_transform(
            images[0, channel].numpy(), rotation, offset=offset, order=1, mode="grid-constant"
        )
        assert np.allclose(found[channel], want, atol=1e-9)


def test_outside_shows_the_fill() -> None:
    fill = (0.4, 0.5, 0.6)
    one = torch.ones(1)
    out = similarity(torch.ones(1, 3, 9, 9), torch.tensor([[100.0, 0.0]]), 0 * one, one, fill)
    assert torch.allclose(out[0], torch.tensor(fill)[:, None, None].expand(3, 9, 9))


def test_draws_stay_in_their_ranges(monkeypatch: Any) -> None:
    seen: list[tuple[Tensor, ...]] = []
    monkeypatch.setattr(module, "similarity", lambda images, *args: seen.append(args[:3]) or images)
    g = [random(i) for i in range(200)]
    draw_similarity(g, 0.01, BLACK)(torch.zeros(200, 3, 10, 20))
    shift, angle, scale = seen[0]
    for value, reach in ((shift / 10, 0.01), (angle / (math.pi / 2), 0.01), (scale - 1, 0.01)):
        assert 0.8 * reach < float(value.max()) <= reach and -reach <= float(value.min()) < -0.8 * reach


# --- copies and switches -------------------------------------------------------------------------------------------
def state_at(x: Tensor) -> State:
    return State(
        threat=Threat(), steps=4, clean=x, region=None, x=x, best=x, best_rank=torch.full((len(x),), torch.inf),
        generators=[random(5) for _ in x], active=list(range(len(x))), rows=torch.arange(len(x)),
    )  # fmt: skip


def cubic(images: Tensor, active: Any, progress: float) -> Evaluation:
    loss = images.pow(3).flatten(1).sum(1)
    return Evaluation(loss=loss, rank=loss.detach())


def test_the_gradient_is_the_mean_over_the_copies() -> None:
    x = picture().double()
    result, gradient = copies_gradient(3, beta=0, fill=BLACK)(cubic, state_at(x))
    by_hand = (3 * x**2 + 3 * (x / 2) ** 2 / 2 + 3 * (x / 4) ** 2 / 4) / 3
    assert torch.allclose(gradient, by_hand) and torch.allclose(result.rank, x.pow(3).sum()[None])


def test_one_transformation_serves_all_copies_and_changes_with_the_step() -> None:
    state, x = state_at(picture()), picture()
    _, gradient = copies_gradient(2, beta=0.1, fill=BLACK)(cubic, state)
    warp = draw_similarity([random(5)], 0.1, BLACK)
    parts = []
    for divisor in (1, 2):
        y = x.clone().requires_grad_(True)
        parts.append(torch.autograd.grad(cubic(warp(y / divisor), [0], 0).loss.sum(), y)[0])
    assert torch.allclose(gradient, (parts[0] + parts[1]) / 2, atol=1e-6)
    _, later = copies_gradient(2, beta=0.1, fill=BLACK)(cubic, state)
    assert not torch.allclose(gradient, later, atol=1e-3)


def test_losses_are_those_of_the_iterate_itself_when_they_decide(sam: Segmenter) -> None:
    """keep_best and stop_at ask for one more pass a step; the path is the same."""
    one, two = (RGA(**QUICK, keep_best=b).run(sam, picture(), [[]], threat=Threat()) for b in (False, True))
    assert (one.forwards, two.forwards, one.gradients, two.gradients) == (10, 13, 9, 9)
    assert not torch.equal(one.losses[:3], two.losses[:3]) and torch.equal(one.losses[3], two.losses[3])


@pytest.mark.parametrize("off", [{"use_map": False}, {"use_rst": False}, {"use_si": False}, {"decay": 0.0}])
def test_every_switch_changes_the_image(sam: Segmenter, off: dict[str, Any]) -> None:
    whole = RGA(**QUICK).run(sam, picture(), [[]], threat=Threat())
    without = RGA(**QUICK, **off).run(sam, picture(), [[]], threat=Threat())
    assert not torch.equal(whole.images, without.images)
    assert without.gradients == (3 if off == {"use_si": False} else 9)


def test_switches_are_their_neutral_values(sam: Segmenter) -> None:
    threat = Threat()

    def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
        one, two = (RGA(**QUICK, **args).run(sam, picture(), [[]], threat=threat) for args in (a, b))
        return torch.equal(one.images, two.images)

    assert same({"use_map": False}, {"weight": 0.0})
    assert same({"use_rst": False}, {"beta": 0.0})
    assert same({"use_si": False}, {"copies": 1})


def test_the_loss_is_the_difference_of_two_cosines(sam: Segmenter) -> None:
    class Given(RGA):
        def region_map(self, task: Task, row: int) -> Tensor:
            return paint(hand_made(), random(7), grid_rate=0.4)

    task = Task(segmenter=sam, clean=picture(8, 12), prompts=[[]], seeds=[0])
    x = picture(8, 12, seed=9)
    f = {k: sam.encode(v).features.flatten() for k, v in {
        "x": x, "clean": task.clean, "map": paint(hand_made(), random(7), grid_rate=0.4)[None]}.items()}  # fmt: skip
    cos = {k: float(f["x"] @ f[k] / f["x"].norm() / f[k].norm()) for k in ("clean", "map")}
    for weight, use_map in ((1.0, True), (0.3, True), (1.0, False)):
        found = float(Given(weight=weight, use_map=use_map).evaluator(task)(x, [0], 0.0).rank)
        assert found == pytest.approx(cos["clean"] - (weight * cos["map"] if use_map else 0), abs=1e-5)


def test_features_move_from_the_image_to_the_map(sam: Segmenter) -> None:
    attack = RGA(steps=8, grid=3, use_rst=False, keep_best=True)
    result = attack.run(sam, picture(), [[]], threat=Threat(eps=32 / 255))
    assert float(result.losses.min()) < float(result.losses[0]) - 0.01


def test_it_stops_when_the_masks_are_gone(sam: Segmenter) -> None:
    result = RGA(**QUICK, stop_at=1.0).run(sam, picture(), [[point(3, 3)]], threat=Threat())
    assert result.steps == (0,)


def test_the_models_own_frame(sam: Segmenter) -> None:
    result = RGA(**QUICK).run(sam, picture(), [[]], threat=Threat(space="model"))
    assert result.images.shape == (1, 3, 24, 32) and "model's frame" in result.flags[0]


@pytest.mark.parametrize("bad", [{"steps": 0}, {"grid": 0}, {"copies": 0}, {"overlap": "last"}, {"beta": 1.5},
                                 {"grid_rate": 0.0}, {"dilations": -1}])  # fmt: skip
def test_values_that_cannot_be_meant(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        RGA(**bad)
