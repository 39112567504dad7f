"""Patches: how a delta changes one weight, in few numbers.

Each kind is a frozen dataclass; `made` is the one place where the new weight is computed, for the saved folder as for
an original that a delta is laid on, so that both agree in every bit. Linear algebra is done in float64 on the CPU and
rounded once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from redsam.errors import InputError

# Share of the largest singular value. The new weights of two float64 decompositions (LAPACK's gesdd and gesvd) were at
# most 1.2e-14 of it apart on lab-b's layers, 5.9e-14 on Gaussian matrices of 96 x 900.
GUARD = 1e-13


@dataclass(frozen=True, kw_only=True, eq=False)
class Patch(ABC):
    """weight: name of the parameter in the model. Tensor fields are the trained numbers and where they sit."""

    kind: ClassVar[str]
    weight: str

    @abstractmethod
    def made(self, original: Tensor) -> Tensor:
        """The new weight, of the original's shape, dtype and device."""

    @property
    @abstractmethod
    def numbers(self) -> int:
        """How many trained numbers it carries."""

    def tensors(self) -> dict[str, Tensor]:
        """What a file stores."""
        return {f.name: v for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)}

    def to_dict(self) -> dict[str, Any]:
        """The rest, JSON-ready."""
        rest = {f.name: v for f in fields(self) if not isinstance(v := getattr(self, f.name), Tensor)}
        return {"kind": self.kind, **rest}


@dataclass(frozen=True, kw_only=True, eq=False)
class SingularValues(Patch):
    """W + U diag(S c) V^T over the leading singular triples of the original W (kernels as out x in k k).

    change: float32, one number for each triple; c is change itself where `signed`, else exp(change) - 1, which keeps
    every singular value positive. change = 0 is the original, bit for bit.
    guard, held: places of the flattened weight that lie so near the middle of two floats that another library, or
    another number of threads, may round them the other way, and what they are; no trained numbers (see `guarded`).
    """

    kind: ClassVar[str] = "singular values"
    change: Tensor
    signed: bool = False
    guard: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int32))
    held: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def numbers(self) -> int:
        return self.change.numel()

    def made(self, original: Tensor) -> Tensor:
        out = _on(original, self._exact(original)[0])
        if self.guard.numel():
            if int(self.guard.max()) >= out.numel():
                raise InputError(f"{self.weight} has {out.numel()} numbers, the delta is for a larger one.")
            out.view(-1)[self.guard.long().to(out.device)] = self.held.to(out)
        return out

    def guarded(self, original: Tensor) -> SingularValues:
        """The same with its guard, for a float32 original: every place within GUARD times the largest singular value
        of a rounding boundary. On lab-b 1 of 370,000 weights differed between 1 and 4 threads, none with the guard."""
        exact, scale = self._exact(original)
        near = exact.float()
        gaps = [
            (exact - (near.double() + torch.nextafter(near, torch.full_like(near, side)).double()) / 2).abs()
            for side in (math.inf, -math.inf)
        ]
        places = (torch.minimum(*gaps) < GUARD * scale).flatten().nonzero().flatten()
        return replace(self, guard=places.int(), held=near.flatten()[places])

    def _exact(self, original: Tensor) -> tuple[Tensor, float]:
        """The new weight in float64 on the CPU, and the original's largest singular value."""
        left, values, right = decomposed(original)
        rank = len(self.change)
        if rank > len(values):
            raise InputError(f"{self.weight} has {len(values)} singular values, the delta brings {rank}.")
        factor = self.change.double() if self.signed else torch.expm1(self.change.double())
        update = (left[:, :rank] * (values[:rank] * factor)) @ right[:rank]
        return original.detach().cpu().double() + update.reshape(original.shape), float(values[0])


@dataclass(frozen=True, kw_only=True, eq=False)
class LowRank(Patch):
    """W + scale * up @ down. up: out x r, down: r x in, float32."""

    kind: ClassVar[str] = "low rank"
    up: Tensor
    down: Tensor
    scale: float = 1.0

    @property
    def numbers(self) -> int:
        return self.up.numel() + self.down.numel()

    def made(self, original: Tensor) -> Tensor:
        if (len(self.up), self.down.shape[-1]) != tuple(original.shape):
            raise InputError(f"{self.weight} is {tuple(original.shape)}, the delta is for another shape.")
        return _on(original, original.detach().cpu().double() + self.scale * (self.up.double() @ self.down.double()))


@dataclass(frozen=True, kw_only=True, eq=False)
class Entries(Patch):
    """Single numbers of a weight, replaced. index: int64 into the flattened weight; values: float32."""

    kind: ClassVar[str] = "entries"
    index: Tensor
    values: Tensor

    @property
    def numbers(self) -> int:
        return self.values.numel()

    def made(self, original: Tensor) -> Tensor:
        if self.index.numel() and int(self.index.max()) >= original.numel():
            raise InputError(f"{self.weight} has {original.numel()} numbers, the delta is for a larger one.")
        flat = original.detach().flatten().clone()
        flat[self.index.to(flat.device)] = self.values.to(flat)
        return flat.view_as(original)


@dataclass(frozen=True, kw_only=True, eq=False)
class Whole(Patch):
    """The weight itself, replaced."""

    kind: ClassVar[str] = "whole"
    value: Tensor

    @property
    def numbers(self) -> int:
        return self.value.numel()

    def made(self, original: Tensor) -> Tensor:
        if self.value.shape != original.shape:
            raise InputError(f"{self.weight} is {tuple(original.shape)}, the delta {tuple(self.value.shape)}.")
        return self.value.detach().clone().to(original)


KINDS: Mapping[str, type[Patch]] = {p.kind: p for p in (SingularValues, LowRank, Entries, Whole)}


def patch_of(told: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Patch:
    """Inverse of `to_dict` and `tensors`. Raises InputError for a kind that this redsam does not know."""
    kind = KINDS.get(str(told.get("kind")))
    if kind is None:
        raise InputError(f"The delta has a patch of kind '{told.get('kind')}'.", hint=f"Known: {', '.join(KINDS)}.")
    fields_: dict[str, Any] = {k: v for k, v in told.items() if k != "kind"} | dict(tensors)
    try:
        return kind(**fields_)
    except TypeError as error:
        raise InputError(f"The delta is broken: {error}.", hint="Make it again: redsam harden MODEL") from error


def decomposed(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Thin SVD of a weight as an out x rest matrix: U, S (falling), V^T in float64 on the CPU."""
    matrix = weight.detach().cpu().double().flatten(1)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return left, values, right


def _on(original: Tensor, made: Tensor) -> Tensor:
    return made.to(original.dtype).to(original.device)
