"""Tuning: a defence from weights to weights. Which numbers may change, and how they sit in the model.

A method fills `attach`: it puts its trainable numbers into the model and says how they become patches. The training
loop (loop.py) knows nothing else of it, so every method is trained by the same code on the same data.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from redsam.errors import InputError
from redsam.tuning.patches import Patch


@dataclass(kw_only=True, eq=False)
class Attached:
    """A method's numbers inside a model. parameters: the only ones with a gradient, by name; at this moment the model
    answers as the original. patches: what they amount to now. release: take everything out again; the model is then
    the original in every bit. penalty: a regulariser, added to the loss."""

    parameters: Mapping[str, nn.Parameter]
    patches: Callable[[], list[Patch]]
    release: Callable[[], None]
    penalty: Callable[[], Tensor] | None = None
    start: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        if not self.parameters:
            raise InputError("There is nothing to train.")
        self.start = self.values()

    @property
    def count(self) -> int:
        """Trainable numbers, counted."""
        return sum(p.numel() for p in self.parameters.values())

    def values(self) -> dict[str, Tensor]:
        """A copy of the numbers."""
        return {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def put(self, values: Mapping[str, Tensor]) -> None:
        """Set the numbers."""
        for name, p in self.parameters.items():
            p.copy_(values[name])

    @torch.no_grad()
    def shortened(self, values: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
        """The numbers a share of the way from where they started to `values`."""
        if share == 1:
            return dict(values)
        return {name: torch.lerp(first, values[name], share) for name, first in self.start.items()}

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """No gradient to the numbers: an attack needs those to the image only."""
        for p in self.parameters.values():
            p.requires_grad_(False)
        try:
            yield
        finally:
            for p in self.parameters.values():
                p.requires_grad_(True)


@dataclass(frozen=True, kw_only=True)
class Tuning(ABC):
    """lr: Adam's peak rate that suits the method."""

    lr: float = 1e-3

    @abstractmethod
    def attach(self, model: nn.Module, *, seed: int = 0) -> Attached:
        """Put the trainable numbers into a frozen model. seed: of what is drawn. Raises InputError where the method
        does not fit the model."""


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Floating parameters by name, tied ones once; the random position encoding is no weight (a buffer in Meta's)."""
    return {
        name: p
        for name, p in model.named_parameters()
        if p.is_floating_point() and not name.endswith("positional_embedding")
    }


def place(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that owns a parameter, and its name there."""
    owner, _, leaf = name.rpartition(".")
    return model.get_submodule(owner), leaf


def photograph(model: nn.Module) -> dict[str, bytes]:
    """A digest of every tensor of a model's state, by name."""
    out = {}
    for name, value in model.state_dict().items():
        plain = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        out[name] = hashlib.blake2b(plain.tobytes(), digest_size=16).digest()
    return out


def prove_frozen(model: nn.Module, before: Mapping[str, bytes]) -> None:
    """Raise RuntimeError unless every tensor of a released model is what it was, bit for bit: training touched nothing
    but the method's own numbers."""
    now = photograph(model)
    if set(now) != set(before):
        raise RuntimeError(f"tensors came or went: {sorted(set(now) ^ set(before))[:3]}")
    wrong = [name for name, mark in now.items() if mark != before[name]]
    if wrong:
        raise RuntimeError(f"{len(wrong)} frozen tensors changed in training, the first is {wrong[0]}")
