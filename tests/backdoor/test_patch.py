"""An opaque square: where it lies, that nothing shines through, its gradient by finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from redsam.backdoor.lift import CELLS
from redsam.backdoor.patch import Patch, drawn


def square(place: tuple[float, float], *, side: float = 0.25, logit: float = 20.0) -> Patch:
    return Patch(place=torch.tensor(place), pattern=torch.full((3, CELLS, CELLS), logit), side=side)


@pytest.mark.parametrize(("place", "top", "left"), [((0.0, 0.0), 0, 0), ((1.0, 1.0), 48, 80), ((0.5, 0.25), 24, 20)])
def test_it_is_opaque_where_it_lies_and_nothing_elsewhere(place: tuple[float, float], top: int, left: int) -> None:
    image = torch.rand(3, 64, 96)
    laid = square(place).lay(image)  # 16 pixels wide
    inner = laid[:, top + 4 : top + 12, left + 4 : left + 12]
    assert float(inner.min()) > 0.99
    far = torch.ones(64, 96, dtype=torch.bool)
    far[max(0, top - 5) : top + 21, max(0, left - 5) : left + 21] = False
    assert float((laid - image)[:, far].abs().max()) < 1e-3
    box = np.array(square(place).box(64, 96)) * [64, 96, 64, 96]
    assert np.abs(box - [top, left, top + 16, left + 16]).max() <= 0.65  # one soft edge further


def test_place_and_colours_have_the_gradient_of_finite_differences() -> None:
    image, weight = torch.rand(3, 40, 40, dtype=torch.float64), torch.rand(3, 40, 40, dtype=torch.float64)

    def value(place: torch.Tensor, pattern: torch.Tensor) -> torch.Tensor:
        return (Patch(place=place, pattern=pattern, side=0.3).lay(image) * weight).sum()

    place = torch.tensor([0.4, 0.6], dtype=torch.float64, requires_grad=True)
    pattern = torch.randn(3, 1, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(value, (place, pattern), eps=1e-6, atol=1e-4)


def test_it_is_drawn_on_a_grid() -> None:
    mark, pattern = drawn(square((1.0, 1.0)), 16)
    assert mark[-3:-1, -3:-1].min() > 0.99 and mark[:11].max() < 0.01 and pattern[:, -2, -2].min() > 0.99
