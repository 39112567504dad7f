"""Scenes and samples refuse what does not fit together; the 8-bit lattice is walked in both directions unchanged."""

from __future__ import annotations

import pytest
import torch

from redsam.errors import InputError
from redsam.prompts import box, point
from redsam.types import Sample, Scene, check_image, from_uint8, to_uint8

IMAGE = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0))
MASKS = torch.zeros(2, 20, 30, dtype=torch.bool)


def test_every_level_of_the_lattice_comes_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).expand(3, -1, -1)
    assert torch.equal(to_uint8(from_uint8(levels)), levels)
    assert from_uint8(levels).dtype == torch.float32
    assert float(from_uint8(levels).max()) == 1.0


def test_to_uint8_rounds_to_the_nearest_and_clips() -> None:
    values = torch.tensor([-0.5, 0.0, 1.4 / 255, 1.6 / 255, 1.0, 1.5])
    assert to_uint8(values).tolist() == [0, 0, 1, 2, 255, 255]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (torch.rand(20, 30), "expected float32 3xHxW"),
        (torch.rand(1, 20, 30), "expected float32 3xHxW"),
        (torch.rand(3, 20, 30).double(), "expected float32 3xHxW"),
        (torch.zeros(3, 20, 30, dtype=torch.uint8), "expected float32 3xHxW"),
        (torch.zeros(3, 1, 30), "too small"),
        (torch.full((3, 20, 30), 1.1), "Scale the image to"),
        (torch.full((3, 20, 30), -0.1), "Scale the image to"),
        (torch.full((3, 20, 30), float("nan")), "Scale the image to"),
    ],
)
def test_what_is_no_image(image: torch.Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_image(image)


def test_a_scene_has_a_size() -> None:
    assert Scene(id="a", image=IMAGE, masks=MASKS).size == (20, 30)
    assert Scene(id="a", image=IMAGE, masks=MASKS[:0]).masks.shape[0] == 0


@pytest.mark.parametrize("masks", [MASKS.float(), MASKS[0], MASKS[:, :10]])
def test_masks_of_a_scene_are_bool_and_of_its_size(masks: torch.Tensor) -> None:
    with pytest.raises(InputError, match="a: masks are"):
        Scene(id="a", image=IMAGE, masks=masks)


def test_a_sample_checks_its_prompts() -> None:
    with pytest.raises(InputError, match="outside the 30 x 20 image"):
        Sample(id="a", image=IMAGE, prompts=(point(30, 5),))


def test_a_sample_has_one_mask_for_each_prompt() -> None:
    Sample(id="a", image=IMAGE, prompts=(point(3, 5), box(0, 0, 5, 5)), masks=MASKS)
    with pytest.raises(InputError, match="1 prompts came with masks"):
        Sample(id="a", image=IMAGE, prompts=(point(3, 5),), masks=MASKS)


def test_the_same_sample_with_another_image() -> None:
    sample = Sample(id="a", image=IMAGE, prompts=(point(3, 5),))
    other = sample.with_image(1 - IMAGE)
    assert other.prompts == sample.prompts
    assert torch.equal(other.image, 1 - IMAGE)
    with pytest.raises(InputError, match="outside"):
        sample.with_image(IMAGE[:, :4, :4])
