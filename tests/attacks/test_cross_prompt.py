"""Cross-prompt PGD: what it draws, that its minibatches are unbiased, and that it works on prompts it never saw."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from redsam.attacks.cross_prompt import CrossPrompt, Expectation
from redsam.attacks.draws import draw, kinds_of, minibatches, stream, subjects
from redsam.attacks.task import Task
from redsam.errors import InputError
from redsam.metrics import iou
from redsam.models import Segmenter, tiny
from redsam.models.values import ModelPrompts
from redsam.objectives import vanish
from redsam.prompts import Prompt, box, point
from redsam.threat import Threat
from redsam.types import from_uint8

HEIGHT, WIDTH = 24, 32


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 1, seed: int = 0) -> Tensor:
    return from_uint8(torch.randint(0, 256, (count, 3, HEIGHT, WIDTH), generator=random(seed), dtype=torch.uint8))


def two_objects() -> Tensor:
    """A square and a ring."""
    masks = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool)
    masks[0, 2:10, 3:12] = True
    masks[1, 12:22, 15:30] = True
    masks[1, 15:19, 19:26] = False
    return masks


PROMPTS: list[Prompt] = [point(5, 5), point(16, 13)]


@pytest.fixture
def sam() -> Segmenter:
    return tiny("sam", image_size=32)


class Watched:
    """Counts the encoder's images and keeps every prompt that is decoded."""

    def __init__(self, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[int] = []
        self.asked: list[list[Prompt]] = []
        self.groups = 0
        embed, decode, group = segmenter._embed, segmenter.decode, segmenter._decode_group

        def _embed(pixels: Tensor) -> Any:
            self.calls.append(len(pixels))
            return embed(pixels)

        def _decode(encoding: Any, prompts: Any, **args: Any) -> Any:
            self.asked.append([p for row in prompts for p in row])
            return decode(encoding, prompts, **args)

        def _group(features: Tensor, extra: Any, prompts: ModelPrompts, **args: Any) -> Any:
            self.groups += 1
            return group(features, extra, prompts, **args)

        monkeypatch.setattr(segmenter, "_embed", _embed)
        monkeypatch.setattr(segmenter, "decode", _decode)
        monkeypatch.setattr(segmenter, "_decode_group", _group)


def key(prompt: Prompt) -> Any:
    return prompt.points, prompt.box, None if prompt.mask is None else prompt.mask.tobytes()


# --- draws ---------------------------------------------------------------------------------------------------------
def test_points_are_uniform_over_the_mask() -> None:
    ring = subjects(two_objects(), PROMPTS)[1]
    g, area = random(), int(two_objects()[1].sum())
    hits = Counter(draw(ring, "point", g).points[0] for _ in range(40 * area))
    assert all(two_objects()[1, int(y), int(x)] for x, y in hits)
    assert len(hits) == area and max(hits.values()) < 3 * 40


def test_boxes_are_about_the_object() -> None:
    square, g = subjects(two_objects(), PROMPTS)[0], random()
    sides = []
    for _ in range(200):
        found = draw(square, "box", g).box
        assert found is not None
        x0, y0, x1, y1 = found
        assert (x0 + x1) / 2 == pytest.approx(7.5) and (y0 + y1) / 2 == pytest.approx(6)
        sides.append(((x1 - x0) / 9, (y1 - y0) / 8))
    low, high = np.min(sides, 0), np.max(sides, 0)
    assert np.std([w - h for w, h in sides]) > 0.05  # width and height are drawn apart
    assert (low >= 0.9).all() and (low < 0.92).all() and (high <= 1.1).all() and (high > 1.08).all()


def test_boxes_stay_inside_the_image() -> None:
    whole, g = subjects(torch.ones(1, HEIGHT, WIDTH, dtype=torch.bool), PROMPTS[:1])[0], random()
    for _ in range(50):
        draw(whole, "box", g).check(HEIGHT, WIDTH)


def test_masks_are_rough_and_never_empty() -> None:
    masks = two_objects()
    masks[0] = False
    masks[0, 0, 0] = True  # one pixel in a corner: growing is all that can be done to it
    dot, ring = subjects(masks, PROMPTS)
    g, seen = random(), set()
    for _ in range(60):
        rough, small = draw(ring, "mask", g).mask, draw(dot, "mask", g).mask
        assert rough is not None and small is not None and small.any()
        assert 0.4 < float(iou(torch.from_numpy(rough), masks[1])) <= 1
        seen.add(rough.tobytes())
    assert len(seen) > 10


def test_an_empty_object_is_asked_by_its_own_prompt() -> None:
    nothing = subjects(torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool), PROMPTS[:1])[0]
    assert all(draw(nothing, kind, random()) is PROMPTS[0] for kind in ("point", "box", "mask"))


def test_a_pool_is_balanced_and_every_place_of_it_uniform() -> None:
    objects = subjects(two_objects(), PROMPTS)
    kinds = ("point", "box", "mask")
    parts = list(islice(stream(objects, kinds, [3, 3, 6], random()), 6))
    assert [len(part) for part in parts] == [3, 3, 6, 3, 3, 6] and {p.kind for p, _ in parts[3]} == set(kinds)
    first, second = ({p.box for part in half for p, _ in part if p.box} for half in (parts[:3], parts[3:]))
    assert len(first) == len(second) == 4 and not first & second
    pool = [pair for part in parts[:3] for pair in part]
    assert Counter(p.kind for p, _ in pool) == {"point": 4, "box": 4, "mask": 4}
    assert Counter(index for _, index in pool) == {0: 6, 1: 6}
    firsts = Counter(
        (p.kind, index) for s in range(1200) for p, index in next(stream(objects, ("point", "box"), [1, 4], random(s)))
    )
    assert len(firsts) == 4 and all(abs(n - 300) < 75 for n in firsts.values())  # 5 standard deviations


# --- the steps -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("per_step", [3, None])
def test_one_encoder_pass_a_step_and_fresh_prompts_inside_the_masks(
    sam: Segmenter, monkeypatch: pytest.MonkeyPatch, per_step: int | None
) -> None:
    attack = CrossPrompt(steps=5, prompts=12, per_step=per_step)
    watched = Watched(sam, monkeypatch)
    attack.run(sam, pictures(), [PROMPTS], threat=Threat(), reference=[two_objects()], seeds=[1])
    count = per_step or 12
    assert watched.calls == [1] * 6 and [len(a) for a in watched.asked] == [count] * 6  # 5 steps and the last iterate
    assert watched.groups <= 6 * 3  # one decoder call for each kind
    steps = [{key(p) for p in asked} for asked in watched.asked]
    assert all(a != b for i, a in enumerate(steps) for b in steps[:i])
    union = two_objects().any(0)
    for prompt in (p for asked in watched.asked for p in asked):
        assert all(union[int(y), int(x)] for x, y in prompt.points)
    kinds = Counter(p.kind for asked in watched.asked for p in asked)
    assert kinds["point"] == kinds["box"] == kinds["mask"]


def test_a_minibatch_is_an_unbiased_sample_of_the_pool(sam: Segmenter) -> None:
    """The gradient of a whole pool is the mean of those of its parts, exactly; the streams agree."""
    model = tiny("sam", image_size=32, dtype=torch.float64)
    task = Task(segmenter=model, clean=pictures().double(), prompts=[PROMPTS], reference=[two_objects()], seeds=[2])

    def gradients(per_step: int | None, times: int) -> Tensor:
        evaluate = CrossPrompt(prompts=12, per_step=per_step).evaluator(task)
        out = []
        for _ in range(times):
            x = task.clean.clone().requires_grad_(True)
            out.append(torch.autograd.grad(evaluate(x, [0], 0.0).loss.sum(), x)[0])
        return torch.stack(out)

    whole, parts = gradients(None, 1)[0], gradients(3, 4)
    assert torch.allclose(parts.mean(0), whole, rtol=1e-6, atol=1e-12)
    assert not torch.allclose(parts[0], whole, rtol=1e-2)


def test_many_minibatches_have_the_mean_of_the_expectation(toy_class: Any) -> None:
    """On a toy whose loss differs from prompt to prompt and is known for every prompt."""

    class Pointed(toy_class):  # type: ignore[misc]
        def _decode_group(self, features: Tensor, extra: Any, prompts: ModelPrompts, *, multimask: bool) -> Any:
            assert prompts.points is not None
            gain = 1 + prompts.points[:, 0, 0, 0].float()[:, None, None, None]  # the column of the point
            return features * gain, torch.ones(len(features), 1)

    model = Pointed(side=32, gain=1.0)
    clean = pictures()[:, :, :, :24]
    mask = torch.zeros(1, HEIGHT, 24, dtype=torch.bool)
    mask[0, 3, 4:9] = True
    task = Task(segmenter=model, clean=clean, prompts=[[point(4, 3)]], reference=[mask], seeds=[0])
    evaluate = CrossPrompt(objective="vanish", kinds=("point",), prompts=50, per_step=10).evaluator(task)
    x = clean.clone().requires_grad_(True)
    losses = torch.stack([evaluate(x, [0], 0.0).loss[0] for _ in range(40)])
    features, scale = model.encode(x).features[:, 0], 32 / 24
    exact = torch.stack([vanish((1 + column * scale) * features, mask)[0] for column in range(4, 9)]).mean()
    got, want = (torch.autograd.grad(value, x)[0] for value in (losses.mean(), exact))
    assert float((got - want).norm() / want.norm()) < 0.05
    assert float(losses.detach().std()) > 1e-3


def test_the_low_resolution_is_the_decoders_own_without_padding(sam: Segmenter) -> None:
    task = Task(segmenter=sam, clean=pictures(), prompts=[PROMPTS], reference=[two_objects()], seeds=[4])
    args: dict[str, Any] = {"objective": "vanish", "prompts": 6, "per_step": None}
    low, full = (CrossPrompt(resolution=r, **args).evaluator(task) for r in ("low", "full"))
    g = task.generators("cross-prompt")[0]
    asked = [p for p, _ in next(stream(subjects(two_objects(), PROMPTS), ("point", "box", "mask"), [6], g))]
    found = sam.decode(sam.encode(task.clean), [asked])
    rows = torch.arange(6)
    best = found.low_res[rows, found.iou.argmax(1)]
    side = best.shape[-1]
    cut = best[:, : side * HEIGHT // WIDTH]  # 24 x 32 pixels: the lower quarter is padding
    assert float(low(task.clean, [0], 0.0).rank) == pytest.approx(float(vanish(cut, cut > 0).mean()), rel=1e-5)
    big = found.logits()[0]
    assert float(full(task.clean, [0], 0.0).rank) == pytest.approx(float(vanish(big, big > 0).mean()), rel=1e-5)


@pytest.mark.parametrize("objective", ["dice", "mse", "segpgd", "feature-l2"])
@pytest.mark.parametrize("select", ["iou", "area", "best", "single"])
def test_every_kind_of_objective_and_choice(sam: Segmenter, objective: str, select: Any) -> None:
    attack = CrossPrompt(objective=objective, select=select, steps=2, prompts=6, per_step=3)
    result = attack.run(sam, pictures(), [PROMPTS], threat=Threat(), reference=[two_objects()])
    assert result.budget[0].l0 > 0 and not result.flags[0]


def test_a_target_mask_does_not_say_where_the_object_is(sam: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    """An objective that aims towards its reference: prompts come from the clean prediction."""
    target = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    target[0, 0, 0] = True
    clean = sam.predict(pictures(), [[point(20, 12)]])[0].masks[0]
    assert bool(clean.any()) and not bool(clean[0, 0])
    watched = Watched(sam, monkeypatch)
    attack = CrossPrompt(objective="mse", kinds=("point",), steps=3, prompts=8, per_step=8)
    attack.run(sam, pictures(), [[point(20, 12)]], threat=Threat(), reference=[target])
    drawn = [p for asked in watched.asked[1:] for p in asked]
    assert len(drawn) == 4 * 8 and not any(target[0, int(p.points[0][1]), int(p.points[0][0])] for p in drawn)


def test_a_batch_is_a_loop(sam: Segmenter) -> None:
    attack = CrossPrompt(steps=3, prompts=9, per_step=4, stop_at=0.0)
    masks = [two_objects(), two_objects().flip(2)]
    both = attack.run(sam, pictures(2), [PROMPTS] * 2, threat=Threat(), reference=masks, seeds=[1, 2])
    for i in range(2):
        one = attack.run(
            sam, pictures(2)[i : i + 1], [PROMPTS], threat=Threat(), reference=masks[i : i + 1], seeds=[i + 1]
        )
        assert float((one.images[0].int() - both.images[i].int()).abs().le(1).float().mean()) > 0.999
        assert torch.allclose(one.losses[:, 0], both.losses[:, i], rtol=1e-3, equal_nan=True)


def test_masks_of_prompts_it_never_saw_shrink_too(sam: Segmenter) -> None:
    prompts = [[point(8, 8), point(20, 12)]]
    unseen = [[box(2, 2, 28, 20), box(5, 5, 18, 22)]]
    clean = sam.predict(pictures(), unseen)[0].masks
    assert (clean.flatten(1).sum(1) > 50).all()
    attack = CrossPrompt(kinds=("point",), steps=20)
    found = attack.run(sam, pictures(), prompts, threat=Threat(eps=64 / 255)).images
    after = iou(sam.predict(from_uint8(found), unseen)[0].masks, clean).mean()
    noise = (pictures() + 64 / 255 * torch.randn(1, 3, HEIGHT, WIDTH, generator=random()).sign()).clamp(0, 1)
    noisy = iou(sam.predict(from_uint8((noise * 255).round().to(torch.uint8)), unseen)[0].masks, clean).mean()
    assert float(after) < 0.5 * float(noisy)


def test_it_stops_when_the_tasks_own_prompts_are_gone(sam: Segmenter) -> None:
    attack = CrossPrompt(steps=3, stop_at=1.0)
    assert attack.run(sam, pictures(), [PROMPTS], threat=Threat(), reference=[two_objects()]).steps == (0,)
    attack = replace(attack, stop_at=0.0)
    assert attack.run(sam, pictures(), [PROMPTS], threat=Threat(), reference=[two_objects()]).steps == (3,)


# --- options -------------------------------------------------------------------------------------------------------
def test_masks_are_left_out_where_the_model_takes_none(toy_class: Any, sam: Segmenter) -> None:
    toy = toy_class()
    assert kinds_of(toy, ("point", "mask", "box")) == ("point", "box") and kinds_of(sam, ("mask",)) == ("mask",)
    with pytest.raises(InputError, match="point"):
        CrossPrompt(kinds=("mask",)).run(toy, pictures(), [PROMPTS], threat=Threat())


def test_the_default_is_a_minibatch_of_64() -> None:
    attack = CrossPrompt()
    assert (attack.prompts, attack.kinds, attack.steps) == (64, ("point", "box", "mask"), 40)
    assert minibatches(attack.prompts, attack.per_step) == [3] * 20 + [4]
    assert minibatches(64, None) == [64] and minibatches(64, 16) == [16] * 4 and minibatches(2, 6) == [2]
    assert CrossPrompt(kinds=["box"]).kinds == ("box",)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bad", [{"kinds": ()}, {"kinds": ("text",)}, {"prompts": 0}, {"per_step": 0}, {"resolution": "x"}]
)
def test_values_that_cannot_be_meant(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        CrossPrompt(**bad)


def test_the_evaluator_is_an_expectation_only_over_masks(sam: Segmenter) -> None:
    task = Task(segmenter=sam, clean=pictures(), prompts=[PROMPTS], reference=[two_objects()], seeds=[0])
    assert isinstance(CrossPrompt().evaluator(task), Expectation)
    assert not isinstance(CrossPrompt(objective="feature-cosine").evaluator(task), Expectation)
