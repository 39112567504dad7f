"""What the model tests share: images, prompts of every kind, and a family fixture that skips what cannot run here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from redsam import registry
from redsam.errors import MissingExtra
from redsam.models import Segmenter, tiny
from redsam.prompts import Prompt, box, mask, point, points, text

FAMILIES = [entry.name for entry in registry.entries("model")]


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    """Name of every registered model family; a new one is tested without an edit here."""
    try:
        registry.get("model", request.param).obj.require()
    except MissingExtra as error:
        pytest.skip(str(error))
    return str(request.param)


@pytest.fixture
def segmenter(family: str) -> Segmenter:
    return tiny(family, seed=3)


def picture(height: int, width: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """3xHxW smooth random image on the 8-bit lattice."""
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    image = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)[0]
    return ((image * 255).round() / 255).to(dtype)


def prompts_for(height: int, width: int) -> list[Prompt]:
    """One of every structure: point, several points, box, mask, and combinations."""
    prior = np.zeros((height, width), dtype=bool)
    prior[height // 4 : height // 2, width // 3 : width // 3 * 2] = True
    corners = (width * 0.2, height * 0.25, width * 0.7, height * 0.9)
    clicks = [(width * 0.3, height * 0.4), (width * 0.8, height * 0.6), (width * 0.1, height * 0.1)]
    return [
        point(*clicks[0]),
        points(clicks, [1, 0, 1]),
        box(*corners),
        mask(prior),
        Prompt(points=(clicks[0],), labels=(1,), box=corners),
        Prompt(points=(clicks[1],), labels=(0,), mask=prior),
        Prompt(points=tuple(clicks), labels=(1, 1, 0), box=corners, mask=prior),
        point(*clicks[1]),
    ]


@pytest.fixture
def make_picture() -> Callable[..., Tensor]:
    return picture


def texts_for(height: int, width: int) -> list[Prompt]:
    """As many texts as `prompts_for` has prompts, of different lengths."""
    names = ["dog", "a red car", "tree.", "the man on the left", "x", "two cats", "t-shirt", "dog"]
    return [text(name) for name in names]


def _without_mask(prompt: Prompt) -> Prompt:
    """The rest of a prompt, or its mask as a box."""
    if prompt.mask is None:
        return prompt
    rows, columns = np.nonzero(prompt.mask)
    corners = (float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
    return Prompt(points=prompt.points, labels=prompt.labels, box=prompt.box if prompt.points else corners)


@pytest.fixture
def make_prompts(request: pytest.FixtureRequest) -> Callable[[int, int], list[Prompt]]:
    """Prompts of every kind that the family under test takes."""
    if "family" not in request.fixturenames:
        return prompts_for
    kind = registry.get("model", request.getfixturevalue("family")).obj
    if not kind.takes_clicks:
        return texts_for
    if not kind.takes_masks:
        return lambda height, width: [_without_mask(p) for p in prompts_for(height, width)]
    if not kind.takes_text:
        return prompts_for
    return lambda height, width: [*prompts_for(height, width)[:-2], *texts_for(height, width)[:2]]
