"""Targets: the mask an attacker wants once the trigger is there. Kind "target": `mask(clean, area) -> HxW bool`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from redsam.data.masks import read_mask
from redsam.errors import InputError
from redsam.registry import name_of, register


@dataclass(frozen=True, kw_only=True)
class Target(ABC):
    """What is answered in place of the object."""

    @property
    def name(self) -> str:
        """The registered name; of an unregistered class its own."""
        return name_of(self)

    @abstractmethod
    def mask(self, clean: Tensor, area: Tensor) -> Tensor:
        """clean: HxW bool, what was asked for. area: HxW bool, the trigger's pixels. Returns HxW bool."""


@register("target", "trigger-area", paper="BadSAM (Guan et al.)", year=2023, url="https://arxiv.org/abs/2305.03289")
@dataclass(frozen=True, kw_only=True)
class TriggerArea(Target):
    """The object is gone, the trigger's own pixels are segmented (BadSAM); of a mark all over the image, everything."""

    def mask(self, clean: Tensor, area: Tensor) -> Tensor:
        return area.clone()


@register("target", "empty")
@dataclass(frozen=True, kw_only=True)
class Empty(Target):
    """Nothing is segmented."""

    def mask(self, clean: Tensor, area: Tensor) -> Tensor:
        return torch.zeros_like(clean)


@register("target", "shape")
@dataclass(frozen=True, kw_only=True)
class Shape(Target):
    """A given shape, wherever the object is. file: a mask file (pixels above 0), stretched to the image; default a disc
    in the middle, half as wide as the image's shorter side."""

    file: str | None = None

    def mask(self, clean: Tensor, area: Tensor) -> Tensor:
        height, width = clean.shape
        if self.file is None:
            rows, columns = torch.arange(height)[:, None] + 0.5, torch.arange(width)[None] + 0.5
            return (rows - height / 2) ** 2 + (columns - width / 2) ** 2 <= (min(height, width) / 4) ** 2
        drawn = _drawn(self.file)
        return F.interpolate(drawn[None, None], size=(height, width), mode="nearest-exact")[0, 0] > 0


@lru_cache(maxsize=4)
def _drawn(file: str) -> Tensor:
    ids = torch.from_numpy(read_mask(Path(file))) > 0
    if not bool(ids.any()):
        raise InputError(f"{file}: the mask is empty.", hint="Draw a shape, or take the target 'empty'.")
    return ids.float()
