"""State: where a training is, as one safetensors file from which it goes on to the same numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from redsam.attacks.artefact import store
from redsam.attacks.universal_settings import same
from redsam.errors import InputError
from redsam.tuning.delta import digest, part, reading

KIND = "hardening in progress"
AGAIN = "Delete it to begin anew, or give another --out."


@dataclass(kw_only=True, eq=False)
class State:
    """now: the trained numbers. first, second: Adam's moments of each. best: the numbers of the best check so far.
    step: steps done. cursor, skipped: of the lessons. minutes: spent, over all runs. history: one entry for each check.
    top: the best check's entry. idle: checks since then."""

    now: dict[str, Tensor]
    first: dict[str, Tensor]
    second: dict[str, Tensor]
    best: dict[str, Tensor]
    step: int = 0
    cursor: int = 0
    minutes: float = 0.0
    idle: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    top: dict[str, Any] = field(default_factory=dict)
    ended: str = ""

    @classmethod
    def fresh(cls, numbers: Mapping[str, Tensor]) -> State:
        """At step 0."""
        zero = {k: torch.zeros_like(v) for k, v in numbers.items()}
        return cls(
            now=dict(numbers), first=zero, second={k: v.clone() for k, v in zero.items()},
            best={k: v.clone() for k, v in numbers.items()},
        )  # fmt: skip


GROUPS = ("now", "first", "second", "best")
PLAIN = ("step", "cursor", "minutes", "idle", "skipped", "history", "top", "ended")


def save(state: State, settings: Mapping[str, Any], path: Path) -> None:
    """Whole or not at all, on the disk when this returns."""
    tensors = {f"{group}/{k}": v for group in GROUPS for k, v in getattr(state, group).items()}
    meta = {name: getattr(state, name) for name in PLAIN}
    store(path, tensors, {"kind": KIND, "settings": dict(settings), "content": digest(tensors), **meta})


def load(path: Path, settings: Mapping[str, Any], numbers: Mapping[str, Tensor]) -> State:
    """The state of this very training. Raises InputError for a file that is broken, damaged, or another training's."""
    tensors, meta = reading(path, AGAIN)
    if meta.get("kind") != KIND or any(name not in meta for name in (*PLAIN, "settings")):
        raise InputError(f"{path}: no state of a hardening.", hint=AGAIN)
    same(settings, meta["settings"], path, "belongs to another training")
    groups = {group: part(tensors, f"{group}/") for group in GROUPS}
    fits = all({k: v.shape for k, v in g.items()} == {k: v.shape for k, v in numbers.items()} for g in groups.values())
    if not fits or meta.get("content") != digest(tensors):
        raise InputError(f"{path}: damaged, its numbers are not those that were written.", hint=AGAIN)
    moved = {g: {k: v.to(numbers[k]) for k, v in group.items()} for g, group in groups.items()}
    values: dict[str, Any] = {**moved, **{name: meta[name] for name in PLAIN}}
    return State(**values)
