"""Noise: what an attack found in one place is lost among random changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redsam.corruptions.base import normal
from redsam.defenses.base import Purifier, within
from redsam.registry import register


@register("defense", "noise", group="purifier", random=True, differentiable=True,
          paper="Certified Adversarial Robustness via Randomized Smoothing (Cohen et al.)", year=2019,
          url="https://arxiv.org/abs/1902.02918")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class Noise(Purifier):
    """Normal noise on every value. sigma: standard deviation in [0, 1] units.

    Deviation: one draw and one answer, no vote over many, so nothing is certified (that is `redsam certify`); the paper
    gives sigma 0.12 to 1 to models trained on noise, 0.05 is what an untrained one bears.
    """

    sigma: float = 0.05

    def __post_init__(self) -> None:
        within("sigma of the noise", self.sigma, 1e-3, 2)

    def purify(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return images + self.sigma * normal(generators, images.shape[1:], images).to(images.dtype)
