"""The arithmetic of diffusion that purifiers share: a schedule, noising, one step back. Plain functions on tensors.

Pictures are Bx3xHxW in [-1, 1]. abar_t is the share of the picture's variance left at timestep t (Ho, Jain & Abbeel,
"Denoising Diffusion Probabilistic Models", NeurIPS 2020): x_t = sqrt(abar_t) x + sqrt(1 - abar_t) eps. What predicts
the noise is any callable, so a model that no library knows can be purified with as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

# (x_t Bx3xHxW, t) to the noise in it, same shape.
Predict = Callable[[Tensor, int], Tensor]
# A fresh standard normal picture of the shape at hand.
Draw = Callable[[], Tensor]

CLEAN = -1  # the timestep before the first: no noise


@dataclass(frozen=True)
class Schedule:
    """abar: of timesteps 0 ... T-1, falling from about 1 to about 0."""

    abar: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.abar)

    def at(self, t: int) -> float:
        """abar_t; 1 for CLEAN."""
        return 1.0 if t == CLEAN else self.abar[t]

    def noised(self, x: Tensor, t: int, eps: Tensor) -> Tensor:
        """The picture x with the noise eps of timestep t."""
        return math.sqrt(self.at(t)) * x + math.sqrt(1 - self.at(t)) * eps

    def guess(self, x: Tensor, t: int, eps: Tensor) -> Tensor:
        """The picture behind x_t if its noise is eps (ibid., eq. 15)."""
        return (x - math.sqrt(1 - self.at(t)) * eps) / math.sqrt(self.at(t))

    def back(self, x0: Tensor, eps: Tensor, t: int, to: int, *, eta: float, draw: Draw) -> Tensor:
        """From x_t, known as picture x0 and noise eps, to x_to (to < t): Song, Meng & Ermon, "Denoising Diffusion
        Implicit Models", ICLR 2021, eq. 12 and 16. eta 0 is DDIM and draws nothing; eta 1 is the ancestral sampler of
        Ho et al. with the smaller of their two variances, also over strides."""
        left, more = self.at(t), self.at(to)
        sigma = eta * math.sqrt((1 - more) / (1 - left)) * math.sqrt(max(1 - left / more, 0.0))
        x = math.sqrt(more) * x0 + math.sqrt(max(1 - more - sigma**2, 0.0)) * eps
        return x + sigma * draw() if sigma > 0 else x


def pairs(times: list[int]) -> Iterator[tuple[int, int]]:
    """(t, next t) down a falling list of timesteps and on to CLEAN."""
    yield from zip(times, [*times[1:], CLEAN], strict=True)
