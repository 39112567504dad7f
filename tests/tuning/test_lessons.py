"""Lessons: the same for the same step, masks stay on their pixels, what cannot be read is passed over and told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from redsam.data import Dataset, open_data
from redsam.errors import InputError
from redsam.models import tiny
from redsam.tuning import Course
from redsam.tuning.course import mix, recipe
from redsam.tuning.lesson_loss import dice_ce, mask_loss, overlap
from redsam.tuning.lessons import Lessons, crop, divided, held_out, probe, whole
from redsam.types import Scene

Make = Callable[..., Course]


def test_a_step_is_the_same_whenever_it_is_drawn(data: Dataset, quick: Make) -> None:
    course = quick(batch=3)
    straight = Lessons(data=data, course=course, side=32)
    drawn = [straight.draw(i) for i in range(4)]
    again = Lessons(data=data, course=course, side=32, cursor=6)
    for a, b in zip(drawn[2] + drawn[3], again.draw(2) + again.draw(3), strict=True):
        assert a.id == b.id and torch.equal(a.image, b.image) and [p.to_dict() for p in a.prompts] == [
            p.to_dict() for p in b.prompts
        ]  # fmt: skip
    assert len({s.size for s in drawn[0]}) == 1 and max(drawn[0][0].size) == 32
    assert {s.id for step in drawn[:3] for s in step} > {s.id for s in drawn[0]}
    kinds = {p.kind for step in drawn for s in step for p in s.prompts}
    assert kinds == {"point", "box"}
    other = Lessons(data=data, course=quick(batch=3, seed=1), side=32).draw(0)
    assert any(a.size != b.size or not torch.equal(a.image, b.image) for a, b in zip(drawn[0], other, strict=True))


@pytest.mark.parametrize("draws", [(0.0, 0.3, 0.7, 0.2), (1.0, 0.5, 0.5, 0.9), (0.4, 1.0, 0.0, 0.6)])
def test_masks_go_where_their_pixels_go(draws: tuple[float, ...]) -> None:
    mask = torch.zeros(60, 80, dtype=torch.bool)
    mask[20:40, 30:60] = True
    scene = Scene(id="a", image=mask.float().expand(3, -1, -1).contiguous(), masks=mask[None])
    for cut in (crop(scene, (24, 32), list(draws)), whole(scene, 40)):
        assert torch.equal(cut.image * 255, (cut.image * 255).round())
        assert float(((cut.image[0] > 0.5) != cut.masks[0]).float().mean()) < 0.08
    assert whole(scene, 40).size == (30, 40)


def test_what_cannot_be_used_is_passed_over_and_told(photos: Path, quick: Make) -> None:
    (photos / "p1.png").write_bytes(b"no image")
    Image.fromarray(np.zeros((56, 56), np.uint8)).save(photos / "p2_mask.png")
    lessons = Lessons(data=open_data(photos), course=quick(batch=6), side=32)
    assert {"p1", "p2"} & {s.id for s in lessons.draw(0) + lessons.draw(1)} == set()
    assert set(lessons.skipped) == {"p1", "p2"} and "no" in lessons.skipped["p2"]


def test_nothing_usable_is_an_error(photos: Path, quick: Make) -> None:
    for file in photos.glob("*_mask.png"):
        Image.fromarray(np.zeros(np.asarray(Image.open(file)).shape, np.uint8)).save(file)
    data = open_data(photos)
    with pytest.raises(InputError, match="None of the 8 photographs can be trained on"):
        Lessons(data=data, course=quick(), side=32).draw(0)
    with pytest.raises(InputError, match="has an object to prompt.*needs masks"):
        held_out(data, quick(), tiny("sam"))


def test_masks_that_do_not_match_are_found_before_training(photos: Path, quick: Make) -> None:
    for file in photos.glob("*_mask.png"):
        Image.fromarray(np.ones((9, 9), np.uint8)).save(file)
    data = open_data(photos)
    with pytest.raises(InputError, match=r"p0_mask\.png.*9 x 9"):
        held_out(data, quick(), tiny("sam"))
    with pytest.raises(InputError, match="9 x 9"):
        probe(data)


def test_held_out_photographs_are_not_trained_on(data: Dataset) -> None:
    train, held = divided(data, 3)
    assert len(held) == 3 and set(train.ids).isdisjoint(held.ids) and len(train) + len(held) == len(data)
    with pytest.raises(InputError, match="8 photographs are too few.*--held-out 2"):
        divided(data, 5)


def test_the_loss_by_hand() -> None:
    logits = torch.tensor([[[[20.0, -20.0], [20.0, -20.0]]]])
    right = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    assert float(dice_ce(logits, right)) == pytest.approx(0.0, abs=1e-5)
    wrong = float(dice_ce(logits, 1 - right))
    assert wrong == pytest.approx(20.0 + 1 - 1 / (2 + 2 + 1), rel=1e-4)
    assert overlap(logits > 0, right > 0.5).item() == 1.0 and overlap(logits > 0, right < 0.5).item() == 0.0


def test_the_loss_falls_towards_the_annotation_and_pads_do_not_count(data: Dataset) -> None:
    segmenter = tiny("sam")
    scene = data[0]  # 48 x 64: a quarter of the square frame is padding
    from redsam.prompts import point

    prediction = segmenter.decode(segmenter.encode(scene.image[None]), [[point(32, 24)]])
    frame = prediction.frames[0]
    side = prediction.low_res.shape[-1]
    truth = torch.nn.functional.interpolate(scene.masks[None].float(), (side * 3 // 4, side), mode="area")
    good = torch.zeros_like(prediction.low_res)
    good[..., : side * 3 // 4, :] = (truth - 0.5) * 40
    sure = torch.ones_like(prediction.iou)
    fit = mask_loss(replace(prediction, low_res=good, iou=sure), [scene.masks])
    padded = good.clone()
    padded[..., side * 3 // 4 :, :] = 30.0
    assert frame.content == (48, 64)
    assert torch.equal(mask_loss(replace(prediction, low_res=padded, iou=sure), [scene.masks]), fit)
    assert float(fit.detach()) < 0.3 < float(mask_loss(prediction, [scene.masks]).detach())
    assert float(mask_loss(replace(prediction, low_res=good, iou=sure * 0), [scene.masks])) > float(fit) + 0.5


def test_what_is_asked_as_text() -> None:
    assert mix("point=2, box") == {"point": 2.0, "box": 1.0}
    made = recipe("pgd:steps=7,objective=bce")
    assert (made.steps, made.objective) == (7, "bce")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"attacks": ("nothing",)}, "no attack named 'nothing'"),
        ({"attacks": ("pgd:stepps=3",)}, "stepps"),
        ({"attacks": ("pgd:steps",)}, "is no attack"),
        ({"attacks": ("prompt-shift",)}, "does not search in linf"),
        ({"attacks": ("pgd:objective=mse",)}, "aims at a mask"),
        ({"attacks": ()}, "needs an attack"),
        ({"prompts": {"nowhere": 1.0}}, "no protocol named 'nowhere'"),
        ({"prompts": {"point": 0.0}}, "mix is empty"),
        ({"eps": 0.0}, "budget of 0"),
        ({"adversarial": 1.5}, "no share"),
        ({"steps": 0}, "steps=0"),
        ({"minutes": -1.0}, "train nothing"),
        ({"lr": 0.0}, "rate of 0"),
        ({"batch": 0}, "batch=0"),
        ({"clean_loss": -0.1}, "0 or more"),
    ],
)
def test_a_course_that_cannot_be_meant_is_refused(fields: dict[str, object], told: str) -> None:
    with pytest.raises(Exception, match=told) as caught:
        Course(**fields)  # type: ignore[arg-type]
    assert type(caught.value).__module__ == "redsam.errors"


def test_steps_have_a_default_only_without_minutes() -> None:
    assert Course().steps == 1000 and Course(minutes=3.0).steps is None
