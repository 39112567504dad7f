"""A tiny deterministic Segmenter whose mask is plain to compute: logits are a linear map of a pixel's colour.

With images of the model's own side an attack's effect on the mask has a closed form: the logit of a pixel is
gain * (sum_c w_c x_c + b) and the mask is where that is above 0.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from redsam.models import Segmenter
from redsam.models.geometry import Frame
from redsam.models.values import ModelPrompts


class _Linear(nn.Module):
    def __init__(self, weight: tuple[float, float, float], bias: float, gain: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight).view(1, 3, 1, 1))
        self.bias = nn.Parameter(torch.tensor(bias))
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * ((x * self.weight).sum(1, keepdim=True) + self.bias)


class Toy(Segmenter):
    """Stretch frame of `side`, no normalisation; every prompt gets three masks, the first has the highest IoU."""

    family = "toy"

    def __init__(
        self,
        *,
        side: int = 16,
        weight: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3),
        bias: float = -0.5,
        gain: float = 20.0,
        poison: float | None = None,
    ) -> None:
        super().__init__(_Linear(weight, bias, gain), name="toy")
        self.side = side
        self.poison = poison
        self.encoded = 0  # images that went through the encoder

    def frame(self, height: int, width: int) -> Frame:
        return Frame(
            kind="stretch", height=height, width=width, side=self.side, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
        )

    def _embed(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        self.encoded += len(pixels)
        out = self.model(pixels)
        if self.poison is not None:  # an image with about this first value gets a gradient that is not a number
            sick = (pixels[:, 0, 0, 0] - self.poison).abs() < 0.2
            out = out * torch.where(sick, float("nan"), 1.0)[:, None, None, None]
        return out, ()

    def _decode_group(
        self, features: Tensor, extra: tuple[Tensor, ...], prompts: ModelPrompts, *, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        count = 3 if multimask else 1
        scale = torch.tensor([1.0, 0.5, 2.0], device=features.device)[:count, None, None]
        iou = torch.tensor([0.9, 0.5, 0.4], device=features.device)[:count].expand(len(features), count)
        return features * scale, iou


@pytest.fixture(scope="session")
def toy_class() -> type[Toy]:
    """The class itself: tests build the model they need."""
    return Toy
