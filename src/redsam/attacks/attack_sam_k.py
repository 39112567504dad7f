"""Attack-SAM-K: mask removal at K random points, for prompts that the attacker does not know (Zhang et al., 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from redsam.attacks.base import Attack
from redsam.attacks.clicks import Clicks, size_of
from redsam.attacks.gradient import follow
from redsam.attacks.loop import Parts, Trace
from redsam.attacks.parts import fixed_step, uniform
from redsam.attacks.task import Task
from redsam.errors import InputError
from redsam.objectives import ATTACK_SAM
from redsam.prompts import Prompt, points
from redsam.registry import register


@register("attack", "attack-sam-k", paper="Attack-SAM: Towards Attacking Segment Anything Model (Zhang et al.)",
          year=2023, url=ATTACK_SAM, norms=("linf",), kind="transfer", knowledge=("white-box", "transfer"),
          cost="steps gradients")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class AttackSAMK(Attack):
    """PGD on ClipMSE at ONE prompt of K = `samples` distinct random pixels of the image, all labelled inside.

    K 400, 40 steps and one multi-point prompt as in UAD's comparison (Lu et al., 2024); step 2/255. The points are
    drawn once per image from its seed; the user's prompts are only asked by stop_at. Deviation: that one prompt, where
    the paper speaks of K points. keep_best True compares the loss at the K points, not at the user's prompts.
    """

    samples: int = 400
    steps: int = 40
    step_size: float = 2 / 255
    keep_best: bool = False

    def reads_masks(self) -> bool:
        """The points are the attack's own, so an image needs no prompt."""
        return False

    def search(self, task: Task) -> Trace:
        """PGD at the points."""
        prompts = random_points(task, self.samples)
        # No reference says which mask of the attacker's own prompt is best.
        select = "iou" if self.select == "best" else self.select
        evaluate = Clicks(task=task, prompts=prompts, select=select, user_select=self.select, stop_at=self.stop_at)
        parts = Parts(steps=self.steps, start=uniform, rule=fixed_step(self.step_size), keep_best=self.keep_best)
        return follow(evaluate, task, parts)


def random_points(task: Task, count: int) -> list[list[Prompt]]:
    """For each image one prompt of `count` distinct pixels. Raises InputError for fewer than 1, or more than it has."""
    height, width = size_of(task)
    if not 1 <= count <= height * width:
        raise InputError(
            f"{count} random points cannot be drawn from the {height * width} pixels of a {width} x {height} image.",
            hint=f"Give samples from 1 to {height * width}.",
        )
    out = []
    for generator in task.generators("attack-sam-k"):
        chosen = torch.randperm(height * width, generator=generator)[:count].tolist()
        out.append([points([(i % width, i // width) for i in chosen])])
    return out
