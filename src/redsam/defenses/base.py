"""Purifier: a defence from image to image, in front of any model.

`run` is what is deployed: it validates, gives every image a generator of its own, clamps, and rounds to the 8-bit
lattice, since that is what a purifier in a service hands on. `through` is the same for an attacker who knows it: the
same values with gradients, rounding straight-through, and where the purifier has no useful gradient the backward pass
is the identity (BPDA: Athalye, Carlini & Wagner, "Obfuscated Gradients Give a False Sense of Security", ICML 2018).
Images are float Bx3xHxW, RGB, [0, 1], original pixels; what comes out has the same size, pixel upon pixel.

Same seed, same bytes, alone or in a batch: draw from `generators[i]` on the CPU, never reduce over the batch, and sum
many values in float64. A subclass fills `purify` and declares itself with `random` and `differentiable`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any, cast, final

import torch
from torch import Tensor

from redsam import registry
from redsam.errors import InputError
from redsam.seeds import generator
from redsam.threat import require_lattice
from redsam.types import check_image

# Of a class that nobody registered: the attacker then takes the identity as gradient and averages over draws.
UNDECLARED: Mapping[str, Any] = {"random": True, "differentiable": False}


@dataclass(frozen=True, kw_only=True)
class Purifier(ABC):
    """Fields of a subclass are its options; bad ones raise InputError in `__post_init__`."""

    @abstractmethod
    def purify(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Float Bx3xHxW to the same shape, device and dtype, never in place; one CPU generator for each image. With
        gradients to `images` where the class says `differentiable`; else called without. Clamped and rounded by the
        caller. An attacker's images lie off the 8-bit lattice."""

    @property
    def name(self) -> str:
        """The registered name; of an unregistered class its own."""
        return registry.name_of(self)

    @property
    def random(self) -> bool:
        """Whether two seeds may give two results, so that an attacker has to average over draws."""
        return bool(self._meta["random"])

    @property
    def differentiable(self) -> bool:
        """Whether `purify` has gradients an attacker can follow; without, the backward pass is the identity."""
        return bool(self._meta["differentiable"])

    @property
    def learned(self) -> str:
        """Fingerprint of the weights behind a purifier that has some, so that other weights are another defence."""
        return ""

    @property
    def label(self) -> str:
        """Name and the options that are not the default: `jpeg:quality=50`. Round-trips through `specs.parse`."""
        changed = [f for f in fields(self) if getattr(self, f.name) != _default(f)]
        given = [f"{f.name}={_text(getattr(self, f.name))}" for f in changed]
        return ":".join([self.name, *([",".join(given)] if given else [])])

    @final
    @torch.no_grad()
    def run(self, images: Tensor, *, seeds: Sequence[int] | None = None) -> Tensor:
        """Purified images, float32 Bx3xHxW in [0, 1] on the 8-bit lattice. images: the same. seeds: one for each image
        (default 0). Raises InputError for images or seeds that cannot be used."""
        for i, image in enumerate(images if images.ndim == 4 else ()):
            check_image(image, f"image {i}")
        if images.ndim == 4 and len(images):
            require_lattice(images)
        return rounded(self._made(images, seeds))

    @final
    def through(self, images: Tensor, *, seeds: Sequence[int] | None = None) -> Tensor:
        """The values of `run` for images on or off the lattice, with gradients to them; float32 or float64."""
        if self.differentiable:
            made = self._made(images, seeds)
        else:
            with torch.no_grad():
                found = self._made(images.detach(), seeds)
            made = straight(found, images)
        made = made.clamp(0, 1)
        return straight(rounded(made.detach()), made)

    @property
    def _meta(self) -> Mapping[str, Any]:
        try:
            return registry.get("defense", str(registry.spec_of(self)["name"])).meta
        except ValueError:
            return UNDECLARED

    def _made(self, images: Tensor, seeds: Sequence[int] | None) -> Tensor:
        if images.ndim != 4 or images.shape[1] != 3 or not len(images) or not images.is_floating_point():
            raise InputError(f"A purifier takes float images Bx3xHxW of one size, got {tuple(images.shape)}.")
        chosen = [0] * len(images) if seeds is None else list(seeds)
        if len(chosen) != len(images):
            raise InputError(f"{len(images)} images came with {len(chosen)} seeds.")
        if not all(isinstance(s, int) for s in chosen):
            raise InputError("A seed is a whole number.")
        out = self.purify(images, [generator("defense", self.name, seed) for seed in chosen])
        if out.shape != images.shape or not bool(out.detach().isfinite().all()):
            raise InputError(f"Purifier '{self.name}' made {tuple(out.shape)} values, or not finite ones.")
        return out.to(images.dtype)


class _Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, source: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, gradients[0]


def straight(value: Tensor, source: Tensor) -> Tensor:
    """Exactly `value`, with the gradient going to `source` (same shape) as if it were that: straight-through, BPDA."""
    return cast(Tensor, _Straight.apply(value.detach(), source))  # type: ignore[no-untyped-call]


def rounded(images: Tensor) -> Tensor:
    """The nearest points of the 8-bit lattice inside [0, 1], in the images' own precision; no gradient."""
    return (images.detach().clamp(0, 1) * 255).round() / 255


def within(what: str, value: Any, low: float, high: float, *, whole: bool = False) -> None:
    """Raise InputError unless `value` is a (whole) number from low to high."""
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        number = "whole number" if whole else "number"
        raise InputError(f"{what} is {value!r}.", hint=f"Give a {number} from {low:g} to {high:g}.")


def _default(field: Field[Any]) -> Any:
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else MISSING


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else repr(value)
