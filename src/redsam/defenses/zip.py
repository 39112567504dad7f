"""ZIP: a photograph made anew around what survives a linear transform that no trigger survives."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from redsam.defenses.base import within
from redsam.defenses.diffusion import Draw, Predict, Schedule, pairs
from redsam.defenses.diffusion_purifier import DiffusionPurifier
from redsam.errors import InputError
from redsam.registry import register

TRANSFORMS = ("blur", "grey", "both")


@register("defense", "zip", group="purifier", random=True, differentiable=True,
          paper="Black-box Backdoor Defense via Zero-shot Image Purification (Shi et al.)", year=2023,
          url="https://arxiv.org/abs/2303.12175")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class Zip(DiffusionPurifier):
    """Reverse diffusion from pure noise, guided by A+A of the picture: its mean colours in squares of `factor` pixels
    (blur), its grey values (grey), or both, the two guided estimates averaged; squares no wider than a trigger keep its
    colours. trust: the paper's lambda; at abar_t the free sample weighs abar_t^lambda, so larger is more guidance.
    steps: evenly spread timesteps, from T (1 - 1/steps) down to 0.

    Published (authors' code): 20 steps, factor 4; blur for Imagenette and GTSRB, both for CIFAR-10; lambda 1 in the
    demonstrations, 0.98 in the README's command. start: thousandths of the schedule where the chain begins; published
    1000, pure noise. Deviation: below 1000 it begins at the transformed picture with that much noise, which a model
    taught little about strong noise needs; lab-ddpm or any model in place of the 256 x 256 ImageNet one; overlapping
    tiles that blend in place of 64 pictures of 32 x 32 in one; sides are enlarged to a multiple of the factor.
    """

    transform: str = "blur"
    factor: int = 4
    trust: float = 1.0
    steps: int = 20
    start: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.transform not in TRANSFORMS:
            raise InputError(f"There is no transform '{self.transform}'.", hint=f"Known: {', '.join(TRANSFORMS)}.")
        within("Side of the squares", self.factor, 1, 256, whole=True)
        within("Trust in the guidance", self.trust, 0.01, 100)
        within("Steps", self.steps, 1, 1000, whole=True)
        within("Start", self.start, 1, 1000, whole=True)

    @property
    def multiple(self) -> int:
        """Squares do not hang over."""
        return self.factor if self.transform != "grey" else 1

    def kept(self, x: Tensor) -> Tensor:
        """A+A x: what the transform keeps, the mean over both where both are asked for (each is a projection)."""
        grey = x.mean(1, keepdim=True).expand_as(x)
        if self.transform == "grey":
            return grey
        squares = F.interpolate(F.avg_pool2d(x, self.factor), scale_factor=self.factor, mode="nearest")
        return squares if self.transform == "blur" else (grey + squares) / 2

    def diffuse(self, x: Tensor, schedule: Schedule, predict: Predict, draw: Draw) -> Tensor:
        wanted, total = self.kept(x), len(schedule)
        first = max(round(self.start / 1000 * total), 1)
        count = min(self.steps, first)
        times = [first * (count - 1 - k) // count for k in range(count)]
        x = draw() if self.start == 1000 else schedule.noised(wanted, times[0], draw())
        for t, to in pairs(times):
            eps, abar = predict(x, t), schedule.at(t)
            guided = math.sqrt(abar) * wanted + (x - self.kept(x)) + math.sqrt(1 - abar) * self.kept(eps)
            free = abar**self.trust
            x0 = schedule.guess((1 - free) * guided + free * x, t, eps)
            x = schedule.back(x0, eps, t, to, eta=1.0, draw=draw)
        return x
