"""Prompts: what is refused, what kind it is, and what a log keeps of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redsam.errors import InputError
from redsam.prompts import Prompt, box, mask, point, points


def test_kinds() -> None:
    prior = np.ones((4, 5), dtype=np.uint8)
    assert point(1, 2).kind == "point"
    assert points([(1, 2), (3, 4)]).kind == "points"
    assert box(0, 0, 2, 2).kind == "box"
    assert mask(prior).kind == "mask"
    assert Prompt(text="a cup").kind == "text"
    assert Prompt(points=((1.0, 2.0),), labels=(1,), box=(0, 0, 2, 2)).kind == "point+box"
    assert Prompt(points=((1.0, 2.0), (0.0, 0.0)), labels=(1, 0), mask=prior > 0).kind == "points+mask"


def test_labels_default_to_positive() -> None:
    assert points([(1, 2), (3, 4)]).labels == (1, 1)
    assert points([(1, 2), (3, 4)], [1, 0]).labels == (1, 0)


def test_nothing_is_no_prompt() -> None:
    with pytest.raises(InputError, match="needs a point, a box, a mask or a text"):
        Prompt()


def test_points_and_labels_go_together() -> None:
    with pytest.raises(InputError, match="2 points came with 1 labels"):
        points([(1, 2), (3, 4)], [1])


@pytest.mark.parametrize("corners", [(5, 0, 5, 5), (6, 0, 5, 5), (0, 5, 5, 5), (0, 0, float("nan"), 5)])
def test_an_empty_box(corners: tuple[float, float, float, float]) -> None:
    with pytest.raises(InputError, match="X1 > X0"):
        box(*corners)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_coordinates_are_finite(bad: float) -> None:
    with pytest.raises(InputError, match="not a finite number"):
        point(1, bad)


@given(st.floats(-20, 60), st.floats(-20, 60), st.integers(2, 40), st.integers(2, 40))
def test_a_point_is_inside_or_refused(x: float, y: float, height: int, width: int) -> None:
    inside = 0 <= x < width and 0 <= y < height
    if inside:
        point(x, y).check(height, width)
    else:
        with pytest.raises(InputError, match="outside"):
            point(x, y).check(height, width)


def test_the_largest_box_is_the_whole_image() -> None:
    box(0, 0, 40, 30).check(30, 40)
    for corners in ((-1, 0, 40, 30), (0, -1, 40, 30), (0, 0, 41, 30), (0, 0, 40, 31)):
        with pytest.raises(InputError, match="outside the 40 x 30 image"):
            box(*corners).check(30, 40)


def test_a_mask_is_of_the_image() -> None:
    mask(np.ones((30, 40))).check(30, 40)
    with pytest.raises(InputError, match="mask prompt is 40 x 30, the image 30 x 40"):
        mask(np.ones((30, 40))).check(40, 30)


def test_a_log_keeps_the_geometry() -> None:
    prompt = Prompt(points=((1.0, 2.0),), labels=(0,), box=(0, 0, 2, 2), mask=np.eye(3, dtype=bool), text="cup")
    assert json.loads(json.dumps(prompt.to_dict())) == {
        "kind": "point+box+mask+text",
        "points": [[1.0, 2.0]],
        "labels": [0],
        "box": [0, 0, 2, 2],
        "mask_area": 3,
        "text": "cup",
    }
