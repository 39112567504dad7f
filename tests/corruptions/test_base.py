"""The base: what it refuses, and that masks, points and boxes go where the pixels go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from redsam.corruptions import Corrupted, Corruption
from redsam.corruptions.base import identity, normal, sample, scale, uniform
from redsam.corruptions.moving import inside
from redsam.errors import InputError
from redsam.prompts import Prompt, box, mask, point, points
from tests.corruptions.conftest import checkerboard, pictures


@dataclass(frozen=True, kw_only=True)
class Shift(Corruption):
    """Each pixel comes from (dx, dy) further on."""

    dx: float = 0.0
    dy: float = 0.0

    def displace(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return identity(images) + torch.tensor([self.dx, self.dy])


@dataclass(frozen=True, kw_only=True)
class Zoom(Corruption):
    """The top left quarter at twice its size (factor 2), or everything at half of it and mirrored beyond (0.5)."""

    factor: float = 2.0

    def displace(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return identity(images) / self.factor


@dataclass(frozen=True, kw_only=True)
class Wild(Corruption):
    """Values far outside."""

    value: float = 7.0

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return images * self.value - 1


HERE = [point(5, 7), point(10.7, 3.2), box(2.7, 3.1, 20.4, 30), box(0, 0, 56, 40), Prompt(text="a cat")]


def test_an_identity_grid_moves_nothing() -> None:
    images, board = pictures(2, 300, 500), checkerboard(300, 500, 7)[None]
    result = Shift().run(images)
    assert torch.equal(result.images, images)
    assert torch.equal(result.masks(1, board), board)
    for before, after in zip(HERE, result.prompts(0, HERE), strict=True):
        assert after is not None
        assert after.points == before.points and after.box == pytest.approx(before.box) and after.text == before.text


@settings(max_examples=40, deadline=None)
@given(x=st.floats(0, 55.9), y=st.floats(0, 39.9))
def test_an_identity_grid_keeps_every_point(x: float, y: float) -> None:
    (after,) = Corrupted(images=pictures(1), grid=identity(pictures(1))).prompts(0, [point(x, y)])
    assert after is not None and after.points[0] == pytest.approx((x, y), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(dx=st.integers(-9, 9), dy=st.integers(-9, 9), x=st.integers(0, 55), y=st.integers(0, 39))
def test_a_point_on_a_distinctive_pixel_lands_on_it(dx: int, dy: int, x: int, y: int) -> None:
    images = pictures(1)
    result = Shift(dx=dx, dy=dy).run(images)
    (after,) = result.prompts(0, [point(x, y)])
    gone = not (0 <= x - dx < 56 and 0 <= y - dy < 40)
    if after is not None:  # what left may still be seen mirrored, or stand at the very border
        column, row = (round(v) for v in after.points[0])
        assert gone or torch.equal(result.images[0, :, row, column], images[0, :, y, x])
    assert gone or after is not None


def test_a_shift_by_hand() -> None:
    images = pictures(1)
    result = Shift(dx=3, dy=-2).run(images)
    assert torch.equal(result.images[0, :, 10, 10], images[0, :, 8, 13])
    board = checkerboard(40, 56, 4)
    assert torch.equal(result.masks(0, board[None])[0, 5:, :50], board[3:38, 3:53])
    moved = result.prompts(0, [point(20, 20), box(10, 12, 30, 25), mask(board.numpy())])
    assert moved[0] is not None and moved[0].points == ((17.0, 22.0),)
    assert moved[1] is not None and moved[1].box == pytest.approx((7, 14, 27, 27))
    assert moved[2] is not None and np.array_equal(moved[2].mask, result.masks(0, board[None])[0].numpy())  # type: ignore[arg-type]


def test_what_left_the_image_is_none() -> None:
    result = Zoom(factor=2).run(pictures(1))
    far = mask(np.pad(np.ones((3, 3), bool), ((37, 0), (53, 0))))
    assert result.prompts(0, [point(50, 35), box(40, 30, 50, 38), far]) == (None, None, None)
    kept = result.prompts(0, [point(10, 5), box(4, 6, 12, 16), points([(10, 5), (50, 35)], [1, 0])])
    assert kept[0] is not None and kept[0].points == ((20.0, 10.0),)
    # Pixel i covers [i, i + 1); of an enlarged pixel the middle goes to 2 i, so edges are right to a pixel.
    assert kept[1] is not None and kept[1].box == pytest.approx((8, 12, 24, 32), abs=1.01)
    assert kept[2] is not None and kept[2].labels == (1,)
    outer = points([(50, 35), (10, 5)], [1, 0])
    assert result.prompts(0, [outer]) == (None,), "only an outer point remained"


def test_a_smaller_picture_keeps_its_points() -> None:
    (after,) = Zoom(factor=0.5).run(pictures(1)).prompts(0, [point(31, 21)])
    assert after is not None and after.points[0] == pytest.approx((15.5, 10.5), abs=0.01)


def test_values_are_clamped_and_rounded() -> None:
    images = pictures(1)
    expected = ((images * 7 - 1).clamp(0, 1) * 255).round() / 255
    assert torch.allclose(Wild().run(images).images, expected, atol=1e-6)


def test_mirrored_like_numpy() -> None:
    at = torch.arange(-20, 30).float()
    grid = torch.stack([at, at], -1)[None].expand(7, -1, -1)[:, :50]
    turned = inside(grid)
    expected = np.pad(np.arange(50), 60, mode="reflect")[60 - 20 : 60 + 30]
    assert np.array_equal(turned[0, :, 0].numpy(), expected)
    assert float(turned[..., 1].min()) >= 0 and float(turned[..., 1].max()) <= 6


def test_sampling_against_scipy() -> None:
    from scipy.ndimage import map_coordinates

    image = pictures(1, 20, 30)
    random = torch.Generator().manual_seed(0)
    grid = torch.rand(1, 20, 30, 2, generator=random) * torch.tensor([29.0, 19.0])
    found = sample(image, grid)[0, 1].numpy()
    expected = map_coordinates(
        image[0, 1].double().numpy(), [grid[0, ..., 1].numpy(), grid[0, ..., 0].numpy()], order=1
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_scale_is_the_shorter_side() -> None:
    assert scale(pictures(1, 224, 300)) == 1 and scale(torch.zeros(1, 3, 1024, 448)) == 2


@pytest.mark.parametrize("draw", [uniform, normal])
def test_every_image_draws_for_itself(draw: object) -> None:
    made = [torch.Generator().manual_seed(s) for s in (1, 2)]
    both = draw(made, (3, 4), torch.zeros(1))  # type: ignore[operator]
    second = draw([torch.Generator().manual_seed(2)], (3, 4), torch.zeros(1))  # type: ignore[operator]
    assert torch.equal(both[1], second[0]) and not torch.equal(both[0], both[1])


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.zeros(3, 8, 8), "Bx3xHxW"),
        (torch.zeros(0, 3, 8, 8), "Bx3xHxW"),
        (torch.zeros(1, 1, 8, 8), "3xHxW"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.float64), "float32"),
        (torch.full((1, 3, 8, 8), 2.0), "values span"),
        (torch.full((1, 3, 8, 8), torch.nan), "values span"),
        (torch.full((1, 3, 8, 8), 0.5), "8-bit lattice"),
        (torch.zeros(1, 3, 1, 8), "too small"),
    ],
)
def test_bad_images(images: Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Wild().run(images)


@pytest.mark.parametrize("seeds", [[1], [1, 2, 3], [1, 0.5]])
def test_bad_seeds(seeds: list[int]) -> None:
    with pytest.raises(InputError, match="seed"):
        Wild().run(pictures(2), seeds=seeds)


def test_a_corruption_that_breaks_is_caught() -> None:
    with pytest.raises(InputError, match="not finite"):
        Wild(value=float("inf")).run(pictures(1))
