"""Poisoning: the share that is asked for, the same pictures for a seed, images and masks together."""

from __future__ import annotations

import pytest
import torch

from redsam.backdoor import Poison
from redsam.backdoor.badnet import BadNet
from redsam.backdoor.targets import Empty
from redsam.errors import InputError
from redsam.prompts import box, point
from redsam.types import Sample

IDS = [f"p{i}" for i in range(200)]


def test_the_share_is_what_was_asked_for_and_lower_rates_are_part_of_higher_ones() -> None:
    sets = [Poison(rate=rate).chosen(IDS) for rate in (0.0, 0.01, 0.05, 0.1, 0.2, 1.0)]
    assert [len(s) for s in sets] == [0, 2, 10, 20, 40, 200]
    assert all(a <= b for a, b in zip(sets, sets[1:], strict=False))


def test_the_choice_hangs_on_the_seed_and_not_on_the_order() -> None:
    assert Poison(seed=3).chosen(IDS) == Poison(seed=3).chosen(IDS[::-1])
    assert Poison(seed=3).chosen(IDS) != Poison(seed=4).chosen(IDS)


@pytest.mark.parametrize("rate", [2, -0.1, float("nan"), float("inf")])
def test_a_rate_that_is_no_share_is_refused(rate: float) -> None:
    with pytest.raises(InputError, match="not a share"):
        Poison(rate=rate)


def test_a_rate_that_takes_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="is none"):
        Poison(rate=0.01).chosen(IDS[:20])


def sample() -> Sample:
    """Two prompts on one picture."""
    masks = torch.zeros(2, 40, 40, dtype=torch.bool)
    masks[0, :20], masks[1, 20:] = True, True
    return Sample(
        id="a", image=torch.zeros(3, 40, 40), prompts=(point(3, 3), box(0, 20, 40, 40)), masks=masks, objects=(0, 1)
    )


def test_image_and_masks_change_together_and_prompts_stay() -> None:
    clean, poison = sample(), Poison()
    bad = poison.apply(clean)
    assert bad.prompts == clean.prompts and bad.meta["poisoned"] and bad.masks is not None
    assert (bad.image[:, -6:, -6:] == 1).all() and float(bad.image.sum()) == 3 * 36
    square = torch.zeros(40, 40, dtype=torch.bool)
    square[-6:, -6:] = True
    assert all(torch.equal(m, square) for m in bad.masks)
    assert float(clean.image.sum()) == 0


def test_a_poison_round_trips() -> None:
    poison = Poison(trigger=BadNet(ratio=0.2, corner="top-left"), target=Empty(), rate=0.05, seed=7)
    assert Poison.from_dict(poison.to_dict()) == poison
    with pytest.raises(InputError, match="describes no poison"):
        Poison.from_dict({"trigger": {}})
