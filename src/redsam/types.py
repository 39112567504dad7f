"""The value objects that travel between rooms. One image convention: float32 3xHxW, RGB, [0, 1], original pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from redsam.errors import InputError
from redsam.prompts import Prompt


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """One annotated image before anybody prompted: what a data reader yields and a prompt protocol consumes.

    image: float32 3xHxW RGB [0, 1] on the 8-bit lattice. masks: bool KxHxW, one object each (K may be 0 when a set has
    no annotation). id: stable and unique in its data set. meta: free JSON (condition, class names, source file).
    """

    id: str
    image: Tensor
    masks: Tensor
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_image(self.image, self.id)
        if self.masks.dtype != torch.bool or self.masks.ndim != 3 or self.masks.shape[1:] != self.image.shape[1:]:
            raise InputError(
                f"{self.id}: masks are {tuple(self.masks.shape)} {self.masks.dtype}, the image is "
                f"{tuple(self.image.shape)}.",
                hint="Give bool KxHxW masks of the image's size.",
            )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return int(self.image.shape[1]), int(self.image.shape[2])


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """One image with its prompts and reference masks.

    prompts: P of them. masks: bool PxHxW, the ground truth each prompt means, or None without annotation.
    objects: for each prompt the index of its object in the scene, so that prompts of one object can be grouped.
    """

    id: str
    image: Tensor
    prompts: tuple[Prompt, ...]
    masks: Tensor | None = None
    objects: tuple[int, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_image(self.image, self.id)
        height, width = self.size
        for p in self.prompts:
            p.check(height, width)
        if self.masks is not None and tuple(self.masks.shape) != (len(self.prompts), height, width):
            raise InputError(f"{self.id}: {len(self.prompts)} prompts came with masks {tuple(self.masks.shape)}.")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return int(self.image.shape[1]), int(self.image.shape[2])

    def with_image(self, image: Tensor) -> Sample:
        """The same prompts and references on another image of the same size."""
        return replace(self, image=image)


def check_image(image: Tensor, where: str = "image") -> None:
    """Raise InputError unless `image` is float32 3xHxW, finite and inside [0, 1]."""
    if image.ndim != 3 or image.shape[0] != 3 or image.dtype != torch.float32:
        raise InputError(f"{where}: expected float32 3xHxW, got {image.dtype} {tuple(image.shape)}.")
    if min(image.shape[1:]) < 2:
        raise InputError(f"{where}: an image of {image.shape[2]} x {image.shape[1]} pixels is too small to segment.")
    low, high = float(image.min()), float(image.max())
    if not (low >= 0.0 and high <= 1.0):  # also catches NaN
        raise InputError(f"{where}: values span {low:g} to {high:g}.", hint="Scale the image to [0, 1].")


def to_uint8(image: Tensor) -> Tensor:
    """Nearest point of the 8-bit lattice, as uint8; inverse of `from_uint8` on the lattice."""
    # In place after the first copy: on large images the memory costs more than the arithmetic.
    return image.detach().clamp(0, 1).mul_(255).round_().to(torch.uint8)


def from_uint8(image: Tensor) -> Tensor:
    """uint8 to float32 [0, 1]: the one conversion, so that value v is always the same float v / 255."""
    return image.to(torch.float32, copy=True).div_(255)
