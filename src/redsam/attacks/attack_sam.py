"""Attack-SAM: remove, enlarge, move, mirror or replace the mask; clipped regression on logits (Zhang et al., 2023)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from redsam import registry
from redsam.attacks.base import Attack
from redsam.attacks.clicks import size_of
from redsam.attacks.goal import Goal
from redsam.attacks.gradient import follow
from redsam.attacks.loop import Parts, Trace
from redsam.attacks.parts import fixed_step, uniform, zero
from redsam.attacks.task import Task
from redsam.errors import InputError
from redsam.objectives import ATTACK_SAM, NEG_TH, POS_TH
from redsam.registry import register

Goals = Literal["vanish", "enlarge", "shift", "flip", "given"]


@register("objective", "clip-target", on="mask", aim="towards", paper="Attack-SAM", year=2023, url=ATTACK_SAM)
def clip_target(logits: Tensor, reference: Tensor, *, progress: float = 1.0) -> Tensor:
    """ClipMSE, mask manipulation: mean of (min(logit, 10) - 10)^2 inside a target mask and (max(logit, -10) + 10)^2
    outside, so that pixels beyond their threshold have no gradient. The target is the reference."""
    inside = (logits.clamp_max(POS_TH) - POS_TH).square()
    outside = (logits.clamp_min(NEG_TH) - NEG_TH).square()
    return torch.where(reference.bool(), inside, outside).flatten(1).mean(1)


@register("objective", "vanish-mse", on="mask", aim="away", blind=True, paper="Attack-SAM", year=2023, url=ATTACK_SAM)
def vanish_mse(logits: Tensor, reference: Tensor, *, progress: float = 1.0) -> Tensor:
    """What ClipMSE is compared with in the paper, mask removal: mean over all pixels of (logit + 10)^2, which also
    pulls up the pixels that are below -10 already. Deviation: the mean instead of the sum."""
    return (logits - NEG_TH).square().flatten(1).mean(1)


@register("objective", "enlarge-mse", on="mask", aim="away", blind=True, paper="Attack-SAM", year=2023, url=ATTACK_SAM)
def enlarge_mse(logits: Tensor, reference: Tensor, *, progress: float = 1.0) -> Tensor:
    """The same for mask enlargement: mean of (logit - 10)^2."""
    return (logits - POS_TH).square().flatten(1).mean(1)


@register("attack", "attack-sam", paper="Attack-SAM: Towards Attacking Segment Anything Model (Zhang et al.)",
          year=2023, url=ATTACK_SAM, norms=("linf",), kind="white-box", knowledge=("white-box", "transfer"),
          cost="steps gradients")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class AttackSAM(Attack):
    """PGD-10 with steps of 2/255 (published at eps 8/255) on ClipMSE; goal "vanish" and "enlarge" need no reference.
    For these two clipped False gives plain MSE on the logits, with which the paper compares.

    goal "shift": the mask moves by `share` of the image's width and height, on each axis to the side with more room;
    "flip": it is mirrored left-right; "given": `mask` is the path of a mask image (foreground above half grey), or
    `run`'s reference is the target (in a region, `run` puts the clean masks where none is given). For these stop_at is
    an IoU with the target to reach, and select="best" means the mask nearest to it.
    Deviations: how far "shift" moves (0.25 of the image here) and how targets are regressed on are not in the paper;
    logits go to +-10 and stop there. The start is random, as PGD's; the best iterate is delivered (False: the last).
    """

    goal: Goals = "vanish"
    steps: int = 10
    step_size: float = 2 / 255
    share: float = 0.25
    mask: str | None = None
    random_start: bool = True
    clipped: bool = True

    def __post_init__(self) -> None:
        if self.goal not in get_args(Goals):
            raise InputError(f"There is no goal '{self.goal}'.", hint=f"Choose from {', '.join(get_args(Goals))}.")
        if self.mask is not None and self.goal != "given":
            raise InputError(f"A target mask came with goal '{self.goal}'.", hint='Set goal to "given".')
        if not self.clipped and self.goal not in ("vanish", "enlarge"):
            raise InputError(
                f"Goal '{self.goal}' regresses on clipped logits only.", hint="Leave clipped out, or aim to vanish."
            )
        if not 0 < self.share < 1:
            raise InputError(
                f"share is {self.share:g} of the image.", hint="Give a number between 0 and 1, such as 0.25."
            )

    def needs_reference(self) -> bool:
        """Moved and mirrored masks are made from it; a target is never guessed."""
        if self.goal == "given":
            return False
        return super().needs_reference() or self.goal in ("shift", "flip")

    def search(self, task: Task) -> Trace:
        """PGD towards the target."""
        if self.goal in ("shift", "flip", "given"):
            task = replace(task, reference=self.targets(task))
        objective: str = self.goal if self.goal in ("vanish", "enlarge") else "clip-target"
        objective += "" if self.clipped else "-mse"
        goal = Goal(
            task=task, objective=registry.get("objective", objective), select=self.select, stop_at=self.stop_at
        )  # fmt: skip
        parts = Parts(
            steps=self.steps, start=uniform if self.random_start else zero, rule=fixed_step(self.step_size),
            keep_best=self.keep_best,
        )  # fmt: skip
        return follow(goal, task, parts)

    def targets(self, task: Task) -> list[Tensor]:
        """Per image the bool P_i x H x W masks to produce."""
        if self.mask is not None:
            target = _read(self.mask, *size_of(task)).to(task.clean.device)
            return [target.expand(len(prompts), *target.shape) for prompts in task.prompts]
        if task.reference is None:
            raise InputError(
                'goal "given" came without a target mask.',
                hint='Give mask="PATH", or the target as reference of run().',
            )
        if self.goal == "given":
            return list(task.reference)
        change = moved if self.goal == "shift" else lambda masks, share: masks.flip(-1)
        return [change(masks, self.share) for masks in task.reference]


def moved(masks: Tensor, share: float) -> Tensor:
    """bool PxHxW, each moved by this share of width and height to the farther side; what leaves the image is lost."""
    return torch.stack([_move(_move(mask, share, 0), share, 1) for mask in masks]) if len(masks) else masks


def _move(mask: Tensor, share: float, axis: int) -> Tensor:
    """bool HxW moved along one axis by at least one pixel."""
    size = mask.shape[axis]
    by = min(max(round(share * size), 1), size)
    where = mask.any(1 - axis).nonzero().flatten()
    forward = not len(where) or int(where.min() + where.max()) <= size - 1
    out = torch.zeros_like(mask)
    near, far = (out.narrow(axis, by, size - by), mask.narrow(axis, 0, size - by))
    if not forward:
        near, far = (out.narrow(axis, 0, size - by), mask.narrow(axis, by, size - by))
    near.copy_(far)
    return out


def _read(path: str, height: int, width: int) -> Tensor:
    """The mask image as bool HxW. Raises InputError when it cannot be read or is of another size."""
    try:
        with Image.open(path) as image:
            mask = np.asarray(image.convert("L")) > 127
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"The target mask {path} cannot be read: {error}.", hint="Give a PNG.") from None
    if mask.shape != (height, width):
        raise InputError(
            f"The target mask {path} is {mask.shape[1]} x {mask.shape[0]} pixels, the image {width} x {height}.",
            hint="Resize the mask to the image (nearest neighbour).",
        )
    return torch.from_numpy(mask)
