"""Total variation: the smoothest picture that still looks like the one given, from a random half of its pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from redsam.corruptions.base import uniform
from redsam.defenses.base import Purifier, within
from redsam.registry import register

BLOCK = 10  # steps between two states that a backward pass keeps
STEP = 1 / math.sqrt(8)  # both of Chambolle & Pock's step sizes: their product times |gradient|^2 <= 8 must be <= 1
SMALL = 1e-12


@register("defense", "tv", group="purifier", random=True, differentiable=True,
          paper="Countering Adversarial Images using Input Transformations (Guo et al.)", year=2018,
          url="https://arxiv.org/abs/1711.00117")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class TotalVariation(Purifier):
    """min_u weight * TV(u) + 1/2 sum over kept pixels (u - image)^2, each colour apart. weight: published 0.03. drop:
    chance that a pixel is not looked at, published 0.5; 0 is the deterministic model of Rudin, Osher & Fatemi (1992).
    steps: of Chambolle & Pock's primal-dual algorithm (2011, alg. 1), through which attackers differentiate.

    Deviation: isotropic TV at each pixel with the squared distance, where the paper's formula has norms of whole rows
    and a distance not squared, and its code split Bregman; 50 steps, which leave 0.1 grey levels to convergence.
    """

    weight: float = 0.03
    drop: float = 0.5
    steps: int = 50

    def __post_init__(self) -> None:
        within("Weight of the total variation", self.weight, 1e-4, 10)
        within("Share of dropped pixels", self.drop, 0, 0.95)
        within("Steps", self.steps, 1, 10_000, whole=True)

    @property
    def random(self) -> bool:
        """Unless no pixel is dropped."""
        return self.drop > 0

    def purify(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        keep = torch.ones_like(images[:, :1])
        if self.drop > 0:
            keep = (uniform(generators, (1, *images.shape[-2:]), images) >= self.drop).to(images.dtype)
        start = _filled(images, keep)
        state = (start, start, torch.zeros_like(images), torch.zeros_like(images))
        for done in range(0, self.steps, BLOCK):
            count = min(BLOCK, self.steps - done)
            if torch.is_grad_enabled() and images.requires_grad:
                state = checkpoint(self._block, images, keep, count, *state, use_reentrant=False)
            else:
                state = self._block(images, keep, count, *state)
        return state[0]

    def _block(
        self, images: Tensor, keep: Tensor, count: int, u: Tensor, ahead: Tensor, down: Tensor, right: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Some steps: dual ascent at the extrapolated picture, projection, primal step towards the kept pixels."""
        for _ in range(count):
            down, right = down + STEP * _slope(ahead, -2), right + STEP * _slope(ahead, -1)
            length = (down.square() + right.square() + SMALL).sqrt() / self.weight
            shrink = length.clamp_min(1)
            down, right = down / shrink, right / shrink
            nearer = u - STEP * (_spread(down, -2) + _spread(right, -1))
            new = (nearer + STEP * keep * images) / (1 + STEP * keep)
            u, ahead = new, 2 * new - u
        return u, ahead, down, right


def _slope(images: Tensor, axis: int) -> Tensor:
    """Forward differences, 0 at the last."""
    step = images.diff(dim=axis)
    return F.pad(step, (0, 0, 0, 1) if axis == -2 else (0, 1))


def _spread(field: Tensor, axis: int) -> Tensor:
    """The transpose of `_slope`."""
    inner = field.narrow(axis, 0, field.shape[axis] - 1)
    ahead, behind = ((0, 0, 1, 0), (0, 0, 0, 1)) if axis == -2 else ((1, 0), (0, 1))
    return F.pad(inner, ahead) - F.pad(inner, behind)


def _filled(images: Tensor, keep: Tensor) -> Tensor:
    """Dropped pixels begin as the mean of what is kept in the 5 x 5 around them; grey where that is nothing."""
    near = F.avg_pool2d(images * keep, 5, 1, 2) / F.avg_pool2d(keep, 5, 1, 2).clamp_min(SMALL)
    return torch.where(keep > 0, images, torch.where(F.max_pool2d(keep, 5, 1, 2) > 0, near, 0.5))
