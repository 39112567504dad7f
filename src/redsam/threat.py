"""Threat: what the attacker may change and knows, and the only code that projects, rounds and measures.

Images are float32 Bx3xHxW in [0, 1]; delivered images are uint8. Units of `eps`: linf in [0, 1] (8/255, not 8), l2 the
root of the summed squares over the whole image in [0, 1] units, l0 a number of pixels (an RGB triple counts as one),
shift the distance in pixels that a point or a corner of a box may move while the image stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from redsam.errors import BudgetViolation, InputError
from redsam.types import from_uint8, to_uint8

Norm = Literal["linf", "l2", "l0", "shift"]
Space = Literal["image", "model"]
Region = Literal["all", "object", "background"]
Knowledge = Literal["white-box", "transfer", "score", "none"]

# Float noise allowed before a number of grey levels is cut to an integer: 8/255 * 255 is 8.000000000000002 or 7.99...
TINY = 1e-6


class Budget(NamedTuple):
    """What a delivered uint8 image spends against its clean uint8 image; linf and l2 in [0, 1] units, l0 in pixels;
    shift: how far its prompts moved, in pixels."""

    linf: float
    l2: float
    l0: int
    shift: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Threat:
    """Norm, eps, space, region, queries, knowledge, lattice.

    space: "image", the budget holds in original pixels (default); "model", it holds in the model's own resized frame,
    as many papers' code has it, and the delivered image is that frame resized back and rounded (its budget in
    original pixels is then reported, not bounded). region: where pixels may change, `object` is the union of an
    image's reference masks. queries: forward passes granted, None is no limit. knowledge: what the attacker sees.
    lattice: True, the delivered 8-bit image lies inside the budget; False, the attacked image is rounded to the
    nearest 8-bit value as papers' code does, so it may exceed eps by half a grey level per value.
    Raises InputError for numbers that cannot be meant, such as an linf eps of 8.
    """

    norm: Norm = "linf"
    eps: float = 8 / 255
    space: Space = "image"
    region: Region = "all"
    queries: int | None = None
    knowledge: Knowledge = "white-box"
    lattice: bool = True

    def __post_init__(self) -> None:
        for name, kind in (("norm", Norm), ("space", Space), ("region", Region), ("knowledge", Knowledge)):
            value = getattr(self, name)
            if value not in get_args(kind):
                raise InputError(f"There is no {name} '{value}'.", hint=f"Choose from {', '.join(get_args(kind))}.")
        if not (math.isfinite(self.eps) and self.eps >= 0):
            raise InputError(f"eps is {self.eps}.", hint="Give a number of at least 0, such as 8/255.")
        if self.norm == "linf" and self.eps > 1:
            raise InputError(
                f"eps={self.eps:g} is larger than the whole range [0, 1] of an image.",
                hint=f"Did you mean {self.eps:g}/255 (type --eps {self.eps:g}/255)?",
            )
        if self.norm == "l0" and self.eps != int(self.eps):
            raise InputError(f"An l0 eps counts pixels, {self.eps:g} is not a whole number.", hint="Type: --eps 100")
        if self.queries is not None and self.queries < 0:
            raise InputError(f"queries is {self.queries}.", hint="Give a number of at least 0, or none for no limit.")

    # --- text and JSON -----------------------------------------------------------------------------------------------
    @staticmethod
    def parse_eps(text: str | float) -> float:
        """`"8/255"` or `"0.03"` to a float. Raises InputError."""
        try:
            top, slash, bottom = str(text).partition("/")
            value = float(top) / float(bottom) if slash else float(top)
        except (ValueError, ZeroDivisionError):
            raise InputError(f"'{text}' is not an eps.", hint="Type a number or a fraction: --eps 8/255") from None
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"'{text}' is not an eps.", hint="Type a number of at least 0: --eps 8/255")
        return value

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, every field."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Threat:
        """Inverse of `to_dict`; an unknown key is an InputError."""
        unknown = sorted(set(data) - {f.name for f in fields(cls)})
        if unknown:
            known = ", ".join(f.name for f in fields(cls))
            raise InputError(f"A threat has no '{unknown[0]}'.", hint=f"It has {known}.")
        return cls(**data)

    @property
    def label(self) -> str:
        """For tables: `linf 8/255`, `l2 1.5`, `l0 100 px`, `shift 5 px`."""
        if self.norm == "linf":
            levels = self.eps * 255
            whole = abs(levels - round(levels)) < 1e-4
            return f"linf {round(levels)}/255" if whole else f"linf {levels:.3g}/255"
        return {"l2": f"l2 {self.eps:g}", "l0": f"l0 {int(self.eps)} px"}.get(self.norm, f"shift {self.eps:g} px")

    # --- region ------------------------------------------------------------------------------------------------------
    def region_mask(self, masks: Sequence[Tensor]) -> Tensor | None:
        """Bx1xHxW bool where pixels may change, from each image's P_i x H x W reference masks; None is everywhere."""
        if self.region == "all":
            return None
        union = torch.stack([m.bool().any(dim=0) for m in masks])[:, None]
        return union if self.region == "object" else ~union

    # --- projection --------------------------------------------------------------------------------------------------
    def project(self, adv: Tensor, clean: Tensor, region: Tensor | None = None) -> Tensor:
        """Nearest image to `adv` inside the ball around `clean`, the region and [0, 1]; float Bx3xHxW, not rounded.

        For l2 the ball and the box are applied one after the other, which stays inside both.
        """
        if self.norm == "shift":
            return clean
        delta = (adv.clamp(0, 1) if self.norm != "l2" else adv) - clean
        if region is not None:
            delta = delta * region
        if self.norm == "linf":
            delta = delta.clamp(-self.eps, self.eps)
        elif self.norm == "l2":
            length = torch.linalg.vector_norm(delta.flatten(1), dim=1).clamp_min(1e-12)
            delta = delta * (self.eps / length).clamp_max(1.0)[:, None, None, None]
        else:
            delta = delta * _largest(delta.square().sum(1, keepdim=True), int(self.eps))
        return (clean + delta).clamp(0, 1)

    def quantise(self, adv: Tensor, clean: Tensor, region: Tensor | None = None) -> Tensor:
        """uint8 Bx3xHxW near `adv` and inside the budget around `clean` (on the lattice); nearest, if not `lattice`.

        linf: eps is cut to whole grey levels. l2: rounded to nearest; if that leaves the ball, values that were rounded
        away from the clean image are taken back one level, those that save most for the least change first; if it
        falls short of the perturbation's length (a faint one would vanish), the strongest values go up one level.
        """
        base = to_uint8(clean).to(torch.int32)
        if self.norm == "shift":
            return to_uint8(clean)
        wanted = adv.detach().double() * 255 - base
        if region is not None:
            wanted = wanted * region
        steps = wanted.round()
        if self.lattice and self.norm == "linf":
            levels = math.floor(self.eps * 255 + TINY)
            steps = steps.clamp(-levels, levels)
        elif self.lattice and self.norm == "l2":
            limit = (self.eps * 255) ** 2
            steps = _spend_the_rest(_shrink_into_ball(steps, wanted, limit), wanted, limit)
        elif self.lattice:
            steps = steps * _largest(steps.square().sum(1, keepdim=True), int(self.eps))
        return (base + steps.to(torch.int32)).clamp(0, 255).to(torch.uint8)

    # --- measurement -------------------------------------------------------------------------------------------------
    @staticmethod
    def measure(adv: Tensor, clean: Tensor) -> Budget:
        """Budget spent by one uint8 3xHxW image against its clean uint8 image: exact, in integers."""
        steps = adv.to(torch.int64) - clean.to(torch.int64)
        return Budget(
            linf=int(steps.abs().max()) / 255,
            l2=math.sqrt(int(steps.square().sum())) / 255,
            l0=int((steps != 0).any(dim=0).sum()),
        )

    def check(self, adv: Tensor, clean: Tensor, region: Tensor | None = None, *, where: str = "image") -> Budget:
        """Measure one delivered uint8 3xHxW image; raise BudgetViolation when it lies outside. region: 1xHxW bool."""
        spent = self.measure(adv, clean)
        allowed = self.eps if self.lattice else self.eps + self._rounding(adv)
        if self.norm == "shift" and spent.l0:
            raise BudgetViolation(f"{where}: {spent.l0} pixels changed, the budget moves prompts only.")
        if self.space == "image" and getattr(spent, self.norm) > allowed * (1 + TINY) + 1e-9:
            raise BudgetViolation(f"{where}: {self.norm} is {getattr(spent, self.norm):g}, the budget {self.eps:g}.")
        if self.space == "image" and region is not None and bool(((adv != clean).any(0, keepdim=True) & ~region).any()):
            raise BudgetViolation(f"{where}: pixels changed outside the region '{self.region}'.")
        return spent

    def check_float(self, adv: Tensor, clean: Tensor, *, where: str = "image") -> Budget:
        """The same for a float 3xHxW image in whatever frame it was attacked (`space="model"`)."""
        delta = (adv - clean).double()
        spent = Budget(
            linf=float(delta.abs().max()),
            l2=float(delta.square().sum().sqrt()),
            l0=int((delta != 0).any(dim=0).sum()),
        )
        size = float(getattr(spent, self.norm))
        if not size <= self.eps * (1 + 1e-5) + 1e-6:
            raise BudgetViolation(f"{where}: {self.norm} is {size:g} in the model's frame, the budget {self.eps:g}.")
        return spent

    def _rounding(self, image: Tensor) -> float:
        """How far rounding to the nearest level alone can carry an image beyond eps (`lattice=False`)."""
        return {"linf": 0.5 / 255, "l2": 0.5 / 255 * math.sqrt(image.numel())}.get(self.norm, 0.0)


def on_lattice(images: Tensor) -> bool:
    """Whether every value is v / 255 for a whole v."""
    return bool(from_uint8(to_uint8(images)).sub_(images.detach()).abs_().max() < 1e-5)


def require_lattice(images: Tensor) -> None:
    """Raise InputError unless a file could hold these images."""
    if not on_lattice(images):
        raise InputError(
            "The images are not on the 8-bit lattice, so no file can hold them.",
            hint="Round them first: redsam.types.from_uint8(to_uint8(images)).",
        )


def _largest(score: Tensor, count: int) -> Tensor:
    """Bx1xHxW scores to a 0/1 mask of each image's `count` largest."""
    flat = score.flatten(1)
    keep = torch.zeros_like(flat)
    count = min(count, flat.shape[1])
    if count:
        keep.scatter_(1, flat.topk(count, dim=1).indices, 1.0)
    return keep.view_as(score)


def _shrink_into_ball(steps: Tensor, wanted: Tensor, limit: float) -> Tensor:
    """Whole `steps` (rounded `wanted`, Bx3xHxW, grey levels) to whole steps with sum of squares at most `limit`.

    Taking one level back from a value rounded away from zero saves 2|s| - 1 and costs 1 - 2 (|s| - |w|) of squared
    distance to what was wanted; with all of them taken back the result is truncation, which never exceeds |wanted|.
    """
    shape = steps.shape
    whole, exact = steps.flatten(1), wanted.flatten(1)
    size = whole.abs()
    outward = size > exact.abs()
    saved = torch.where(outward, 2 * size - 1, torch.zeros_like(size))
    cost = (1 - 2 * (size - exact.abs())).clamp_min(1e-9)
    order = torch.where(outward, saved / cost, torch.full_like(size, -1.0)).argsort(dim=1, descending=True)
    excess = size.square().sum(1, keepdim=True) - limit
    gained = saved.gather(1, order).cumsum(1)
    before = torch.cat([torch.zeros_like(gained[:, :1]), gained[:, :-1]], dim=1)
    take = torch.zeros_like(size).scatter(1, order, (before < excess).to(size.dtype)) * outward
    inside = (size - take) * whole.sign()
    # `wanted` itself may exceed the ball by float noise of the projection: drop whole values until it holds.
    over = inside.square().sum(1) > limit * (1 + 1e-12)
    if bool(over.any()):
        scale = (limit / exact.square().sum(1).clamp_min(1e-12)).sqrt().clamp_max(1.0)[:, None] * (1 - 1e-9)
        inside = torch.where(over[:, None], (exact * scale).trunc(), inside)
    return inside.view(shape)


def _spend_the_rest(steps: Tensor, wanted: Tensor, limit: float) -> Tensor:
    """What rounding to zero left of the budget, at most `wanted`'s own sum of squares, goes to values that were rounded
    towards zero: one level more where it buys most of the wanted direction, |w| for a cost of 2|s| + 1."""
    whole, exact = steps.flatten(1), wanted.flatten(1).abs()
    size = whole.abs()
    rest = exact.square().sum(1).clamp_max(limit) - size.square().sum(1)
    price = 2 * size + 1
    order = torch.where(exact > size, exact / price, torch.full_like(size, -1.0)).argsort(dim=1, descending=True)
    fits = price.gather(1, order).cumsum(1) <= rest[:, None]
    more = torch.zeros_like(size).scatter(1, order, fits.to(size.dtype)) * (exact > size)
    return ((size + more) * wanted.flatten(1).sign()).view(steps.shape)
