"""Matched: the PSNR is the one asked for, the picture lies on the other corruption's path, or says that it cannot."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from redsam import registry
from redsam.corruptions.matched import LEVELS, distance, met, mixed
from redsam.errors import InputError, UnknownName
from redsam.metrics import psnr


@pytest.mark.parametrize("of", ["raindrops", "night", "gaussian-noise", "contrast"])
def test_the_psnr_is_the_one_asked_for_or_the_strongest_there_is(of: str, photographs: Tensor) -> None:
    reached = 0
    for severity, level in enumerate(LEVELS, start=1):
        made = registry.create("corruption", "matched", of=of, severity=severity).run(photographs, seeds=[1, 2, 3])
        for image, clean in zip(made.images, photographs, strict=True):
            found = float(psnr(image, clean))
            assert met(found, severity) or found > level
            reached += met(found, severity)
    assert reached >= 3 * 3, "nearly nothing was matched: the test measured nothing"


def test_it_lies_between_two_severities_of_one_draw(photographs: Tensor) -> None:
    image = photographs[:1]
    made = registry.create("corruption", "matched", of="brightness", severity=3).run(image, seeds=[4]).images[0]
    corners = [image[0]]
    corners += [registry.create("corruption", "brightness", severity=s).run(image).images[0] for s in range(1, 6)]
    goal = 255**2 * 10 ** (-LEVELS[2] / 10)
    first = next(s for s in range(1, 6) if distance(corners[s], image[0]) >= goal)
    weights = torch.linspace(0, 1, 4097).tolist()
    nearest = min(float((mixed(corners[first - 1], corners[first], w) - made).abs().max()) for w in weights[::16])
    assert nearest <= 1.01 / 255


def test_its_own_options_reach_the_other(photographs: Tensor) -> None:
    with pytest.raises(UnknownName, match="thickness"):
        registry.create("corruption", "matched", of="fog", options={"thickness": 1}).run(photographs)
    for wrong in ({"of": "elastic"}, {"of": "matched"}, {"options": {"severity": 2}}):
        with pytest.raises(InputError):
            registry.create("corruption", "matched", **wrong)
    with pytest.raises(UnknownName, match="fogg"):
        registry.create("corruption", "matched", of="fogg")
