"""Physical trigger (Li et al., 2021): a sticker as a camera sees it, never twice the same."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from redsam.backdoor.badnet import BadNet
from redsam.errors import InputError
from redsam.registry import register


@register("trigger", "physical", paper="Backdoor Attack in the Physical World (Li et al.), as in ZIP", year=2021,
          url="https://arxiv.org/abs/2104.02361")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class Physical(BadNet):
    """The square of `badnet`, turned, moved, resized and relit anew for each image, as ZIP augments it: flip to the
    other side 0.5, turn up to 10 degrees, move up to 0.1 of the image, scale 0.8 to 0.9, brightness and contrast 0.2.

    Deviation: the mark is transformed and the photograph is not, so that masks of its objects stay true.
    """

    pattern: str = "noise"
    degrees: float = 10.0
    shift: float = 0.1
    smallest: float = 0.8
    largest: float = 0.9
    relight: float = 0.2
    flip: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 < self.smallest <= self.largest <= 1 and 0 <= self.shift < 1 and 0 <= self.flip <= 1):
            raise InputError("A sticker keeps 0 < smallest <= largest <= 1, a shift below 1 and a flip in [0, 1].")
        if not (0 <= self.relight < 1 and 0 <= self.degrees <= 180):
            raise InputError("A sticker is relit by less than 1 and turned by at most 180 degrees.")

    def lay(self, image: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        height, width = image.shape[-2:]
        top, left, side = self.place(height, width)
        u = torch.rand(7, generator=random, dtype=torch.float64).tolist()
        scale = self.smallest + (self.largest - self.smallest) * u[0]
        angle = math.radians(self.degrees * (2 * u[1] - 1))
        # Towards the image's middle only: what leaves the picture is no trigger.
        inward_y, inward_x = (-1 if top > height / 2 else 1), (-1 if left > width / 2 else 1)
        y = top + side / 2 + inward_y * self.shift * u[2] * height
        x = left + side / 2 + inward_x * self.shift * u[3] * width
        if u[4] < self.flip:
            x = width - x
        rows, columns = torch.meshgrid(torch.arange(height) + 0.5 - y, torch.arange(width) + 0.5 - x, indexing="ij")
        cos, sin = math.cos(angle), math.sin(angle)
        # Each pixel in the sticker's own frame, -1 to 1 inside it.
        grid = torch.stack([cos * columns + sin * rows, cos * rows - sin * columns], -1) * 2 / (side * scale)
        area = (grid.abs() <= 1).all(-1)
        light, contrast = (1 + self.relight * (2 * v - 1) for v in u[5:])
        patch = self.patch(side)
        patch = ((patch - patch.mean()) * contrast + patch.mean()) * light
        shown = F.grid_sample(
            patch[None].to(image), grid[None].to(image), mode="bilinear", padding_mode="border", align_corners=False
        )
        return torch.where(area.to(image.device), shown[0].clamp(0, 1), image), area
