"""Attack: turns images with prompts into delivered 8-bit images inside a threat.

`run` is final and owns the honesty: it validates, prepares the task, lets the recipe search, then projects, rounds
to 8 bits inside the budget, measures the uint8 image and raises when it lies outside. A recipe that follows gradients
derives from `GradientAttack` (gradient.py) and fills `parts`; any other fills `search`.
Images are float32 Bx3xHxW, RGB, [0, 1], on the 8-bit lattice, original pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from redsam.attacks.check import validate
from redsam.attacks.loop import Trace
from redsam.attacks.task import Task
from redsam.errors import BudgetViolation
from redsam.models import draws
from redsam.models.base import Segmenter
from redsam.models.geometry import Frame
from redsam.models.resample import resize
from redsam.models.values import Select
from redsam.prompts import Prompt, shift
from redsam.threat import Budget, Threat
from redsam.types import to_uint8


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackResult:
    """images: delivered uint8 Bx3xHxW, on the device of the images given. budget: measured on them. losses:
    (steps + 1)xB objective of every iterate per image, smaller is better for the attacker, nan after an image stopped.
    steps: gradient steps (or rounds of queries) per image. gradients, forwards: single-image passes (a gradient counts
    as a forward too). queries: forward passes through the victim per image, empty for attacks that do not count them.
    prompts: per image what a prompt attack made of its prompts, None when the prompts are as given.
    flags: a remark per image, "" when there is none; a flagged image is still inside its threat."""

    images: Tensor
    budget: tuple[Budget, ...]
    losses: Tensor
    steps: tuple[int, ...]
    gradients: int
    forwards: int
    flags: tuple[str, ...]
    queries: tuple[int, ...] = ()
    prompts: tuple[tuple[Prompt, ...], ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """select: which of the several masks is attacked; "iou" is the one the user would get. stop_at: stop an image once
    every prompt's IoU with the reference is at most this (at least this for an objective that aims towards its
    reference); None runs all steps. keep_best: deliver the best iterate by the objective, not the last."""

    select: Select = "iou"
    stop_at: float | None = None
    keep_best: bool = True

    @abstractmethod
    def search(self, task: Task) -> Trace:
        """How the recipe looks for images. What it returns is projected, rounded and measured by `run`."""

    def reads_masks(self) -> bool:
        """Whether the search looks at masks, so that every image needs a prompt."""
        return True

    def needs_reference(self) -> bool:
        """Whether the search compares masks with a reference (`Task.reference` is then never None)."""
        return self.stop_at is not None or self.select == "best"

    @final
    def run(
        self,
        segmenter: Segmenter,
        images: Tensor,
        prompts: Sequence[Sequence[Prompt]],
        *,
        threat: Threat,
        reference: Sequence[Tensor] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> AttackResult:
        """Attack B images of one size. prompts: per image, attacked together. reference: per image bool P_i x H x W,
        the masks to work from; default the clean prediction. seeds: one per image (default 0); a result does not
        depend on the rest of the batch.

        With `threat.space == "model"` the images are first resized to the model's own frame (without padding) and
        attacked there; the delivered image is that frame resized back and rounded, as papers' code does. The budget is
        then checked in the model's frame; `budget` still reports what the delivered image spends in original pixels,
        and the flag of every image says so.
        Raises InputError for input that cannot be attacked, BudgetViolation if the result lies outside its threat.
        """
        validate(self, segmenter, images, prompts, threat, reference, seeds)
        clean, home = images.to(segmenter.device), images.device
        given, prompts = prompts, segmenter.settle(clean, prompts)
        if reference is None and (self.needs_reference() or threat.region != "all"):
            first: Select = "iou" if self.select == "best" else self.select
            reference = [m.masks for m in segmenter.predict(clean, prompts, select=first)]
        masks = None if reference is None else [m.to(clean.device, torch.bool) for m in reference]
        region = threat.region_mask(masks) if masks is not None else None
        frame = segmenter.frame(*images.shape[-2:]) if threat.space == "model" else None
        attacked = clean if frame is None else resize(clean, frame.content).clamp(0, 1)
        where = region if frame is None or region is None else _nearest(region, frame.content)
        task = Task(
            segmenter=segmenter, clean=attacked, prompts=prompts, reference=masks, region=where, threat=threat,
            seeds=list(seeds) if seeds is not None else [0] * len(images), frame=frame,
        )  # fmt: skip
        with draws.expecting(segmenter.draws):
            trace = self.search(task)
        found = threat.project(trace.images, attacked, where)
        if frame is None:
            delivered, notes = threat.quantise(found, clean, region), [""] * len(images)
        else:
            delivered, notes = _back(found, attacked, threat, frame)
        before = to_uint8(clean)
        budget = tuple(
            threat.check(delivered[i], before[i], None if region is None else region[i], where=f"image {i}")
            for i in range(len(images))
        )
        if trace.prompts is not None:
            budget = _check_prompts(budget, prompts, trace.prompts, threat)
        return AttackResult(
            images=delivered.to(home), budget=budget, losses=trace.losses, steps=trace.steps,
            gradients=trace.gradients, forwards=trace.forwards,
            flags=tuple("; ".join(filter(None, pair)) for pair in zip(trace.flags, notes, strict=True)),
            queries=trace.queries,
            prompts=trace.prompts or (None if prompts is given else tuple(tuple(p) for p in prompts)),
        )  # fmt: skip


def _check_prompts(
    budget: Sequence[Budget],
    before: Sequence[Sequence[Prompt]],
    after: Sequence[Sequence[Prompt]],
    threat: Threat,
) -> tuple[Budget, ...]:
    """The budgets with how far each image's prompts moved; raises when that is further than allowed."""
    out = []
    for i, (spent, old, new) in enumerate(zip(budget, before, after, strict=True)):
        moved = max((shift(a, b) for a, b in zip(old, new, strict=True)), default=0.0)
        if moved > (threat.eps if threat.norm == "shift" else 0.0) * (1 + 1e-6) + 1e-6:
            raise BudgetViolation(f"image {i}: a prompt moved by {moved:g} pixels, the budget is {threat.label}.")
        out.append(spent._replace(shift=moved))
    return tuple(out)


def _back(found: Tensor, attacked: Tensor, threat: Threat, frame: Frame) -> tuple[Tensor, list[str]]:
    """Check the budget in the model's frame, then resize back to original pixels and round."""
    notes = []
    for i in range(len(found)):
        spent = getattr(threat.check_float(found[i], attacked[i], where=f"image {i}"), threat.norm)
        notes.append(f"budget held in the model's frame only ({threat.norm} {spent:.4g} there)")
    return to_uint8(resize(found, (frame.height, frame.width))), notes


def _nearest(region: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(region.float(), size=size, mode="nearest-exact") > 0.5
