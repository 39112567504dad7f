"""Prompt protocols: where prompts lie, and that a draw belongs to its sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from redsam import registry
from redsam.data import from_masks, open_data
from redsam.data.protocols import Point, Protocol, RedTeaming, Uad, draw_points, exact_box, jittered_box
from redsam.errors import InputError
from redsam.seeds import generator, stable_seed
from redsam.types import Sample, Scene

NAMES = ("box", "mask", "point", "point+box", "points", "red-teaming", "uad")


def scene(masks: np.ndarray, name: str = "s") -> Scene:
    return Scene(id=name, image=torch.zeros(3, *masks.shape[1:]), masks=torch.from_numpy(masks))


def rectangles(count: int = 12, height: int = 50, width: int = 70) -> np.ndarray:
    rng = np.random.default_rng(0)
    masks = np.zeros((count, height, width), bool)
    for mask in masks:
        y, x = rng.integers(0, height - 12), rng.integers(0, width - 12)
        mask[y : y + rng.integers(8, 12), x : x + rng.integers(8, 12)] = True
    return masks


stacks = st.tuples(st.integers(1, 5), st.integers(2, 14), st.integers(2, 14)).flatmap(lambda s: arrays(np.bool_, s))


def described(sample: Sample) -> list[object]:
    return [p.to_dict() for p in sample.prompts]


def make(name: str, **args: object) -> Protocol:
    protocol = registry.create("protocol", name, **args)
    assert isinstance(protocol, Protocol)
    return protocol


def test_all_are_registered_and_round_trip() -> None:
    assert set(NAMES) <= set(registry.names("protocol"))
    for name in registry.names("protocol"):
        protocol = make(name, max_objects=3)
        spec = registry.spec_of(protocol)
        assert registry.create("protocol", spec["name"], **spec["args"]) == protocol


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(masks=stacks, seed=st.integers(0, 2**31))
def test_prompts_fit_their_objects(name: str, masks: np.ndarray, seed: int) -> None:
    """Points inside their mask, boxes inside the image and within the jitter, one reference mask for each prompt."""
    sample = make(name)(scene(masks), seed=seed)
    height, width = masks.shape[1:]
    assert sample.masks is not None and len(sample.masks) == len(sample.objects) == len(sample.prompts)
    assert bool(sample.prompts) != ("skip" in sample.meta)
    for prompt, owner, truth in zip(sample.prompts, sample.objects, sample.masks, strict=True):
        mask = masks[owner]
        np.testing.assert_array_equal(truth.numpy(), mask)
        assert all(mask[int(y), int(x)] for x, y in prompt.points) and set(prompt.labels) <= {1}
        if prompt.box is not None:
            x0, y0, x1, y1 = exact_box(mask)
            got = np.array(prompt.box)
            slack = 0.05 if name == "uad" else 0.0
            limits = np.array([x1 - x0, y1 - y0, x1 - x0, y1 - y0]) * slack + 1e-9
            assert (np.abs(got - np.array([x0, y0, x1, y1])) <= limits).all()
            assert got[0] >= 0 and got[1] >= 0 and got[2] <= width and got[3] <= height
        if prompt.mask is not None:
            np.testing.assert_array_equal(prompt.mask, mask)


@pytest.mark.parametrize("name", NAMES)
def test_a_draw_belongs_to_its_sample(name: str) -> None:
    masks = rectangles()
    scenes = [scene(masks, f"image {i}") for i in range(3)]
    protocol = make(name, max_objects=4)
    forward = {s.id: described(protocol(s, seed=5)) for s in scenes}
    state = torch.get_rng_state()
    backward = {s.id: described(protocol(s, seed=5)) for s in reversed(scenes)}
    assert forward == backward
    assert torch.equal(state, torch.get_rng_state()), "the global generator was touched"
    if name in ("point", "points", "uad", "point+box"):
        assert forward["image 0"] != forward["image 1"]
        assert described(protocol(scenes[0], seed=6)) != forward["image 0"]


def test_object_limits_do_not_move_points_and_are_shared() -> None:
    all_of = {i: p for p, i in zip(Point()(scene(rectangles()), seed=1).prompts, range(12), strict=True)}
    few = Point(max_objects=4)(scene(rectangles()), seed=1)
    assert len(few.objects) == 4 and list(few.objects) == sorted(few.objects)
    for prompt, owner in zip(few.prompts, few.objects, strict=True):
        assert prompt.points == all_of[owner].points
    assert make("box", max_objects=4)(scene(rectangles()), seed=1).objects == few.objects
    chosen = {Point(max_objects=4)(scene(rectangles()), seed=s).objects for s in range(20)}
    assert len(chosen) > 10 and {i for c in chosen for i in c} == set(range(12)), "not drawn from all objects"


def test_small_and_empty_objects_and_reasons() -> None:
    masks = np.zeros((3, 50, 40), bool)
    masks[1, :3, :3] = True  # 9 of 2,000 pixels
    masks[2, :4, :5] = True  # 20: exactly 1 %
    assert Point()(scene(masks), seed=0).objects == (2,)
    assert Point(min_area=0.0)(scene(masks), seed=0).objects == (1, 2)
    none = Point(min_area=0.5)(scene(masks), seed=0)
    assert none.prompts == () and "none of the 3 objects" in str(none.meta["skip"])
    bare = Point()(scene(masks[:0]), seed=0)
    assert bare.prompts == () and bare.masks is None and "no annotated object" in str(bare.meta["skip"])


@pytest.mark.parametrize("bad", [{"max_objects": 0}, {"min_area": -0.1}, {"min_area": 1.0}])
def test_settings_are_checked(bad: dict[str, float]) -> None:
    with pytest.raises(InputError):
        make("point", **bad)
    for name, more in (("points", {"k": 0}), ("uad", {"points": 0, "boxes": 0}), ("uad", {"jitter": 1.0})):
        with pytest.raises(InputError):
            make(name, **more)


def test_points_are_uniform_over_the_mask() -> None:
    mask = np.zeros((6, 9), bool)
    mask[1:3, 2:7] = mask[5, 8] = True
    seen = np.zeros(mask.shape)
    for seed in range(2200):
        ((x, y),) = draw_points(mask, 1, generator(seed))
        seen[y, x] += 1
    assert (seen[~mask] == 0).all()
    assert (np.abs(seen[mask] - 200) < 60).all()  # 200 expected of each of 11 pixels, standard deviation 13.5


def test_several_points_differ_while_there_are_enough() -> None:
    mask = np.zeros((5, 5), bool)
    mask[0, :4] = True
    for seed in range(20):
        assert len(set(draw_points(mask, 4, generator(seed)))) == 4
        assert len(draw_points(mask, 7, generator(seed))) == 7
        assert draw_points(mask, 4, generator(seed))[0] == draw_points(mask, 1, generator(seed))[0]


def test_exact_box_is_one_past_the_last_pixel() -> None:
    mask = np.zeros((20, 30), bool)
    mask[4:9, 10:25] = True
    assert exact_box(mask) == (10.0, 4.0, 25.0, 9.0)
    mask[:] = True
    assert exact_box(mask) == (0.0, 0.0, 30.0, 20.0)
    with pytest.raises(InputError):
        exact_box(np.zeros((3, 3), bool))


def test_jitter_fills_its_range_and_keeps_the_centre() -> None:
    mask = np.zeros((100, 100), bool)
    mask[40:60, 30:70] = True
    boxes = np.array([jittered_box(mask, 0.9, 1.1, generator(s)) for s in range(500)])
    width, height = (boxes[:, 2] - boxes[:, 0]) / 40, (boxes[:, 3] - boxes[:, 1]) / 20
    for scale in (width, height):
        assert 0.9 <= scale.min() < 0.905 and 1.095 < scale.max() <= 1.1 and abs(scale.mean() - 1) < 0.01
    assert abs(np.corrcoef(width, height)[0, 1]) < 0.15, "width and height are each drawn"
    np.testing.assert_allclose((boxes[:, :2] + boxes[:, 2:]) / 2, [[50, 50]] * 500)


def test_uad_is_five_points_and_three_boxes_on_the_first_ten() -> None:
    sample = Uad()(scene(rectangles(12)), seed=0)
    assert sample.objects == tuple(i for i in range(10) for _ in range(8))
    assert [p.kind for p in sample.prompts[:8]] == ["point"] * 5 + ["box"] * 3
    assert len({p.box for p in sample.prompts if p.box}) == 30


def test_red_teaming_takes_the_largest_and_their_centres() -> None:
    masks = np.zeros((11, 40, 60), bool)
    for i, mask in enumerate(masks):
        mask[10 : 12 + 2 * i, 20 : 24 + 2 * i] = True
    sample = RedTeaming()(scene(masks), seed=0)
    assert sample.objects == tuple(range(10, 1, -1))
    assert sample.prompts[0].points == ((31.0, 20.0),)  # columns 20..43, rows 10..31: int(31.5), int(20.5)


def ring() -> np.ndarray:
    """A C, open to the right: its mean lies in the hole."""
    mask = np.zeros((1, 30, 50), bool)
    mask[0, 5:25, 10:40] = True
    mask[0, 9:21, 14:40] = False
    return mask


def test_red_teaming_fallback_is_the_nearest_pixel_and_the_published_one_is_not() -> None:
    mask = ring()
    rows, columns = np.nonzero(mask[0])
    x, y = int(columns.mean()), int(rows.mean())
    assert not mask[0, y, x]
    ((px, py),) = RedTeaming()(scene(mask), seed=0).prompts[0].points
    best = ((columns - x) ** 2 + (rows - y) ** 2).min()
    assert mask[0, int(py), int(px)] and (px - x) ** 2 + (py - y) ** 2 == best
    ((qx, qy),) = RedTeaming(as_published=True)(scene(mask), seed=0).prompts[0].points
    assert (qx, qy) == (x, y) and not mask[0, int(qy), int(qx)], "nearest x and nearest y each by itself"


def test_from_masks_names_where_they_come_from() -> None:
    first = open_data("demo")[0]
    automatic = [torch.zeros(first.size, dtype=torch.bool) for _ in range(2)]
    automatic[1][10:200, 10:200] = True
    other = from_masks(first, automatic)
    assert other.meta["masks"] == "automatic" and other.meta["file"] == first.meta["file"]
    assert "labels" not in other.meta and len(first.masks) == 3
    assert RedTeaming()(other, seed=0).objects == (1,)
    assert len(from_masks(first, []).masks) == 0
    assert torch.equal(from_masks(first, torch.stack(automatic)).masks, other.masks)


def test_stable_seed() -> None:
    """Values written down once: they must never change, or every record made before means something else."""
    assert stable_seed(0, "a") == stable_seed(0, "a") != stable_seed("0", "a")
    assert stable_seed(1, "23") != stable_seed("1", "23") != stable_seed("12", "3")
    assert stable_seed(0, "a") == STABLE and 0 <= STABLE < 2**63
    draws = [float(torch.rand(1, generator=generator(i, "x"))) for i in range(400)]
    assert abs(np.mean(draws) - 0.5) < 0.06 and len(set(draws)) == 400


STABLE = 2671967653362453091
