"""Attack: turns images with prompts into delivered 8-bit images inside a threat.

`run` is final and owns the honesty: it validates, prepares the reference, lets the recipe search, then projects, rounds
to 8 bits inside the budget, measures the uint8 image and raises when it lies outside. A recipe fills one hook, `parts`.
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

from redsam import registry
from redsam.attacks.goal import Goal
from redsam.attacks.loop import Parts, Start, Trace, descend
from redsam.attacks.parts import uniform, zero
from redsam.errors import InputError
from redsam.models.base import Segmenter
from redsam.models.geometry import Frame
from redsam.models.resample import resize
from redsam.models.values import Select
from redsam.prompts import Prompt
from redsam.threat import Budget, Threat, on_lattice
from redsam.types import check_image, to_uint8


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackResult:
    """images: delivered uint8 Bx3xHxW, on the device of the images given. budget: measured on them. losses:
    (steps + 1)xB objective of every iterate per image, smaller is better for the attacker, nan after an image stopped.
    steps: gradient steps per image. gradients, forwards: single-image passes (a gradient counts as a forward too).
    flags: a remark per image, "" when there is none; a flagged image is still inside its threat."""

    images: Tensor
    budget: tuple[Budget, ...]
    losses: Tensor
    steps: tuple[int, ...]
    gradients: int
    forwards: int
    flags: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """objective: registry name, minimised. select: which of the several masks is attacked; "iou" is the one the user
    would get. stop_at: stop an image once every prompt's IoU with the reference is at most this (at least this for an
    objective that aims towards its reference); None runs all steps. keep_best: deliver the best iterate by the
    objective, not the last."""

    objective: str = "vanish"
    select: Select = "iou"
    stop_at: float | None = None
    keep_best: bool = True

    @abstractmethod
    def parts(self, threat: Threat) -> Parts:
        """The recipe: parts of the loop for this threat."""

    def search(
        self, goal: Goal, clean: Tensor, *, threat: Threat, region: Tensor | None, seeds: Sequence[int]
    ) -> Trace:
        """How the recipe looks for images; the gradient loop unless a subclass knows better."""
        parts = self.parts(threat)
        if parts.steps < 1:
            raise InputError(f"An attack of {parts.steps} steps does nothing.", hint="Give at least 1 step.")
        if threat.queries is not None and parts.steps + 1 > threat.queries:
            raise InputError(
                f"{parts.steps} steps need {parts.steps + 1} forward passes, the threat grants {threat.queries}.",
                hint=f"Give at most {max(threat.queries - 1, 0)} steps or more queries.",
            )
        return descend(goal, clean, threat=threat, parts=parts, seeds=seeds, region=region)

    def clean_start(self) -> Start:
        """The clean image, or a random point for objectives on features, whose gradient is zero at the clean image."""
        return uniform if registry.get("objective", self.objective).meta["on"] == "feature" else zero

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
        objective = registry.get("objective", self.objective)
        _validate(self, segmenter, images, prompts, threat, reference, seeds, on=objective.meta["on"])
        device = segmenter.device
        clean, home = images.to(device), images.device
        height, width = int(images.shape[-2]), int(images.shape[-1])
        wanted = self.stop_at is not None or threat.region != "all" or self.select == "best"
        if reference is None and (wanted or (objective.meta["on"] == "mask" and not objective.meta.get("blind"))):
            first: Select = "iou" if self.select == "best" else self.select
            reference = [m.masks for m in segmenter.predict(clean, prompts, select=first)]
        masks = None if reference is None else [m.to(device, torch.bool) for m in reference]
        region = threat.region_mask(masks) if masks is not None else None
        frame = segmenter.frame(height, width) if threat.space == "model" else None
        goal = Goal(
            segmenter=segmenter, objective=objective, prompts=prompts, select=self.select,
            reference=masks, stop_at=self.stop_at, frame=frame,
        )  # fmt: skip
        attacked = clean if frame is None else resize(clean, frame.content).clamp(0, 1)
        where = region if frame is None or region is None else _nearest(region, frame.content)
        if objective.meta["on"] == "feature":
            with torch.no_grad():
                goal = Goal(**(goal.__dict__ | {"clean": goal.encode(attacked).features.detach()}))
        trace = self.search(goal, attacked, threat=threat, region=where, seeds=seeds or [0] * len(images))
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
        return AttackResult(
            images=delivered.to(home), budget=budget, losses=trace.losses, steps=trace.steps,
            gradients=trace.gradients, forwards=trace.forwards,
            flags=tuple("; ".join(filter(None, pair)) for pair in zip(trace.flags, notes, strict=True)),
        )  # fmt: skip


def _back(found: Tensor, attacked: Tensor, threat: Threat, frame: Frame) -> tuple[Tensor, list[str]]:
    """Check the budget in the model's frame, then resize back to original pixels and round."""
    notes = []
    for i in range(len(found)):
        spent = getattr(threat.check_float(found[i], attacked[i], where=f"image {i}"), threat.norm)
        notes.append(f"budget held in the model's frame only ({threat.norm} {spent:.4g} there)")
    return to_uint8(resize(found, (frame.height, frame.width))), notes


def _nearest(region: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(region.float(), size=size, mode="nearest-exact") > 0.5


def _validate(
    attack: Attack,
    segmenter: Segmenter,
    images: Tensor,
    prompts: Sequence[Sequence[Prompt]],
    threat: Threat,
    reference: Sequence[Tensor] | None,
    seeds: Sequence[int] | None,
    *,
    on: str,
) -> None:
    """Everything that can be wrong before the first pass, as InputError."""
    if images.ndim != 4 or not len(images):
        raise InputError(f"An attack takes images Bx3xHxW of one size, got {tuple(images.shape)}.")
    for i, image in enumerate(images):
        check_image(image, f"image {i}")
    if not on_lattice(images):
        raise InputError(
            "The images are not on the 8-bit lattice, so no file can hold them.",
            hint="Round them first: redsam.types.from_uint8(to_uint8(images)).",
        )
    for name, given in (("lists of prompts", prompts), ("references", reference), ("seeds", seeds)):
        if given is not None and len(given) != len(images):
            raise InputError(f"{len(images)} images came with {len(given)} {name}.")
    if (on == "mask" or attack.stop_at is not None) and not all(prompts):
        raise InputError(f"Image {[len(p) for p in prompts].index(0)} has no prompt to attack.")
    for i, masks in enumerate(reference or ()):
        if tuple(masks.shape) != (len(prompts[i]), *images.shape[2:]):
            raise InputError(f"image {i}: {len(prompts[i])} prompts came with references {tuple(masks.shape)}.")
    name = str(registry.spec_of(attack)["name"])
    norms = registry.get("attack", name).meta["norms"]
    if threat.norm not in norms:
        raise InputError(f"Attack '{name}' does not search in {threat.norm}.", hint=f"It takes {', '.join(norms)}.")
    if threat.knowledge not in ("white-box", "transfer"):
        raise InputError(f"This attack follows gradients, the threat's knowledge is '{threat.knowledge}'.")
