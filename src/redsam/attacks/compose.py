"""Attacks made of attacks: other recipes' searches on some images of a task, measured as they would be delivered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, cast

import torch
from torch import Tensor

from redsam import registry
from redsam.attacks.base import Attack
from redsam.attacks.loop import Trace
from redsam.attacks.task import Task
from redsam.metrics import iou
from redsam.models.resample import resize
from redsam.models.values import Select
from redsam.types import from_uint8, to_uint8


@dataclass(frozen=True, kw_only=True)
class Member:
    """One attack of a list as data: its registry name, options that differ from its own defaults, and the norms in
    which the list asks for it (None: all that it knows)."""

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)
    norms: tuple[str, ...] | None = None

    @property
    def label(self) -> str:
        """`apgd`, or `sea(objective=js, steps=100)`: for flags and tables."""
        given = ", ".join(f"{key}={value}" for key, value in self.args.items())
        return f"{self.name}({given})" if given else self.name

    def make(self, **shared: Any) -> Attack:
        """The attack. shared: options for every member, of which it takes those that it has and that are not None."""
        known = {f.name for f in fields(registry.get("attack", self.name).obj)}
        chosen = {key: value for key, value in shared.items() if key in known and value is not None}
        return cast(Attack, registry.create("attack", self.name, **{**self.args, **chosen}))

    def searches_in(self, norm: str) -> bool:
        """Whether the attack knows this norm, and the list asks for it there."""
        return (self.norms is None or norm in self.norms) and norm in registry.get("attack", self.name).meta["norms"]


def deliver(task: Task, images: Tensor) -> Tensor:
    """What `Attack.run` makes of a search's float images: uint8 Bx3xHxW in original pixels, without its checks."""
    found = task.threat.project(images, task.clean, task.region)
    if task.frame is None:
        return task.threat.quantise(found, task.clean, task.region)
    return to_uint8(resize(found, (task.frame.height, task.frame.width)))


def overlap(task: Task, delivered: Tensor, select: Select) -> Tensor:
    """Per image the mean over its prompts of the IoU with the task's reference, on delivered uint8 images, by the
    model's final answer (`Segmenter.predict`): float64 B on the CPU, one forward pass an image."""
    assert task.reference is not None
    found = task.segmenter.predict(
        from_uint8(delivered), task.prompts, select=select, reference=task.reference if select == "best" else None
    )
    rows = [iou(m.masks, r).mean() for m, r in zip(found, task.reference, strict=True)]
    return torch.stack(rows).double().cpu()


@dataclass(kw_only=True, eq=False)
class Ledger:
    """What searches on parts of a task of `count` images took together, per image and in all."""

    count: int
    gradients: int = 0
    forwards: int = 0
    steps: list[int] = field(init=False)
    queries: list[int] = field(init=False)
    remarks: list[list[str]] = field(init=False)
    counted: bool = False  # whether any search counts its queries

    def __post_init__(self) -> None:
        self.steps, self.queries = [0] * self.count, [0] * self.count
        self.remarks = [[] for _ in range(self.count)]

    def add(self, label: str, trace: Trace, rows: Sequence[int]) -> None:
        """Book the trace of a search on these rows of the task."""
        self.gradients += trace.gradients
        self.forwards += trace.forwards
        self.counted |= bool(trace.queries)
        for place, row in enumerate(rows):
            self.steps[row] += trace.steps[place]
            self.queries[row] += trace.queries[place] if trace.queries else 0
            if trace.flags[place]:
                self.remarks[row].append(f"{label}: {trace.flags[place]}")

    def trace(self, images: Tensor, losses: Tensor) -> Trace:
        """The whole task's trace: these images, these objectives, and the sums."""
        return Trace(
            images=images, losses=losses, steps=tuple(self.steps), gradients=self.gradients, forwards=self.forwards,
            flags=tuple("; ".join(said) for said in self.remarks), queries=tuple(self.queries) if self.counted else (),
        )  # fmt: skip
