"""Tapped blocks: the right ones, in order, with gradients, and the model left as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from redsam.errors import InputError
from redsam.models import Segmenter, tiny
from redsam.models.features import middle, tap


def test_the_middle_of_a_vit_b_is_where_the_papers_look() -> None:
    assert middle(12) == (4, 5, 6, 7)
    assert middle(24) == tuple(range(8, 16)) and middle(32) == tuple(range(10, 21))
    for count in range(1, 60):
        assert middle(count) and set(middle(count)) <= set(range(count))


def images(make_picture: Callable[..., Tensor]) -> Tensor:
    return torch.stack([make_picture(30, 40, seed=s) for s in (1, 2)])


def blocks(segmenter: Segmenter) -> int:
    try:
        return len(segmenter.stages())
    except InputError:
        pytest.skip(f"{segmenter.family} names no blocks")


def test_every_block_is_an_image_and_has_gradients(segmenter: Segmenter, make_picture: Callable[..., Tensor]) -> None:
    count = blocks(segmenter)
    x = images(make_picture).requires_grad_(True)
    encoding, features = tap(segmenter, x, range(count))
    assert len(features) == count and all(len(f) == 2 and f.ndim >= 3 for f in features)
    assert torch.equal(encoding.features, segmenter.encode(x).features)  # looking changes nothing
    for feature in features:
        (gradient,) = torch.autograd.grad(feature[0].square().sum(), x, retain_graph=True)
        assert gradient.isfinite().all() and gradient[0].abs().sum() > 0
        assert float(gradient[1].abs().sum()) == 0  # another image's features know nothing of this one


def test_no_hook_stays_behind(segmenter: Segmenter, make_picture: Callable[..., Tensor]) -> None:
    blocks(segmenter)
    hooks = [len(s._forward_hooks) for s in segmenter.stages()]
    tap(segmenter, images(make_picture))
    with pytest.raises(InputError):  # an image that no encoder takes
        tap(segmenter, torch.zeros(1, 1, 8, 8))
    assert [len(s._forward_hooks) for s in segmenter.stages()] == hooks


def test_a_block_feeds_the_next_and_the_order_asked_for_is_kept(make_picture: Callable[..., Tensor]) -> None:
    sam = tiny("sam", seed=3)
    first, second = tap(sam, images(make_picture), [0, 1])[1]
    again = sam.stages()[1](first)
    assert torch.allclose(again if isinstance(again, Tensor) else again[0], second, atol=1e-6)
    swapped = tap(sam, images(make_picture), [1, 0])[1]
    assert torch.equal(swapped[0], second) and torch.equal(swapped[1], first)


def test_checkpointed_blocks_give_the_same_features_and_gradients(make_picture: Callable[..., Tensor]) -> None:
    found = []
    for checkpointing in (False, True):
        x = images(make_picture).requires_grad_(True)
        features = tap(tiny("sam", seed=3, checkpointing=checkpointing), x, [0, 1])[1]
        found.append((features, torch.autograd.grad(sum(f.square().sum() for f in features), x)[0]))
    (plain, slope), (checkpointed, other) = found
    assert all(torch.equal(a, b) for a, b in zip(plain, checkpointed, strict=True))
    assert torch.allclose(slope, other, rtol=1e-4, atol=1e-6) and slope.abs().sum() > 0


@pytest.mark.parametrize("wrong", [[2], [-1], [0, 9]])
def test_a_block_that_is_not_there_is_said(wrong: list[int], make_picture: Callable[..., Tensor]) -> None:
    with pytest.raises(InputError, match="blocks 0 to 1"):
        tap(tiny("sam"), images(make_picture), wrong)


def test_a_family_without_blocks_says_what_to_do(make_picture: Callable[..., Tensor]) -> None:
    class Bare(Segmenter):
        family = "bare"

        def frame(self, height: int, width: int) -> Any:
            return None

        def _embed(self, pixels: Tensor) -> Any:
            return pixels, ()

        def _decode_group(self, *args: Any, **kwargs: Any) -> Any:
            return None

    with pytest.raises(InputError, match="almost-nothing"):
        tap(Bare(torch.nn.Linear(1, 1), name="bare"), images(make_picture))
