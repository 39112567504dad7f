"""Reference photographs for style corruptions: the user's file, or a bundled one that is not the image itself."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from redsam.data.demo import demo_root
from redsam.data.images import read_image
from redsam.errors import InputError
from redsam.models.resample import resize

# The first that is not the image itself: a scene in warm evening light, a close-up, a street of another colour.
BUNDLED = ("china", "flower")
# Two pictures that differ by less than this on average are one that was resized or encoded again.
SAME = 2 / 255
# How far a style corruption goes from the image to the reference, by severity.
STRENGTH = (0.2, 0.4, 0.6, 0.8, 1.0)


def reference_for(image: Tensor, path: str | None) -> Tensor:
    """float32 3xhxw in [0, 1] of the reference's own size, on the image's device. Raises InputError for a file that
    cannot be read and for one that is the image itself."""
    if path is not None:
        given = read_image(path).to(image)
        if same(given, image):
            raise InputError(f"{path}: this is the image itself.", hint="Give another photograph as reference.")
        return given
    return next(photo for name in BUNDLED if not same(photo := bundled(name).to(image), image))


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two 3xHxW show one picture, whatever their sizes."""
    size = (int(other.shape[-2]), int(other.shape[-1]))
    gap = resize(one[None], size)[0].clamp(0, 1) - other
    return float(gap.double().abs().mean()) < SAME


@lru_cache(maxsize=len(BUNDLED))
def bundled(name: str) -> Tensor:
    """A photograph that travels with the package."""
    return read_image(demo_root() / f"{name}.jpg")


def moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the last dimension of CxN, each Cx1; float64."""
    wide = values.to(torch.float64)
    return wide.mean(-1, keepdim=True), wide.std(-1, correction=0, keepdim=True)


def match_moments(values: Tensor, reference: Tensor, strength: float = 1.0) -> Tensor:
    """CxN moved and scaled so that each row has the reference's mean and deviation (CxM); float64. strength: how far of
    the way, 0 none. A row without any deviation only moves."""
    mean, spread = moments(values)
    goal_mean, goal_spread = moments(reference)
    gain = torch.where(spread > 1e-9, goal_spread / spread.clamp_min(1e-9), torch.ones_like(spread))
    wide = values.to(torch.float64)
    return (wide - mean) * (1 + (gain - 1) * strength) + mean + (goal_mean - mean) * strength
