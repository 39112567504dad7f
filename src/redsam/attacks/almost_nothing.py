"""Segment (Almost) Nothing: the final embedding pushed away from the clean one by APGD (Croce & Hein, 2024)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from redsam import registry
from redsam.attacks.apgd import auto_step
from redsam.attacks.base import Attack
from redsam.attacks.feature import afford
from redsam.attacks.goal import Goal
from redsam.attacks.loop import Parts, Trace, descend
from redsam.attacks.parts import uniform
from redsam.attacks.task import Task
from redsam.registry import register


@register("attack", "almost-nothing", paper="Segment (Almost) Nothing (Croce & Hein)", year=2024,
          url="https://arxiv.org/abs/2311.14450", norms=("linf", "l2"), kind="white-box",
          knowledge=("white-box", "transfer"), cost="steps gradients")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class AlmostNothing(Attack):
    """Maximises the l2 distance between the image encoder's embeddings of the clean and the perturbed image, with APGD
    from a random start; prompt-free, and works on every model with a differentiable encoder.

    Delivers the best iterate by that distance. Deviation: the paper's step count and rho were not to be had; steps 100
    and rho 0.75 are APGD's own.
    """

    steps: int = 100
    rho: float = 0.75

    def reads_masks(self) -> bool:
        """Prompt-free."""
        return False

    def needs_reference(self) -> bool:
        """Only to know when to stop."""
        return self.stop_at is not None

    def search(self, task: Task) -> Trace:
        """APGD on the objective `feature-l2`."""
        afford(self.steps, task.threat.queries, beside=1)
        with torch.no_grad():
            clean = task.encode(task.clean).features.detach()
        goal = Goal(
            task=task, objective=registry.get("objective", "feature-l2"), select=self.select, stop_at=self.stop_at,
            clean=clean,
        )  # fmt: skip
        parts = Parts(steps=self.steps, start=uniform, rule=auto_step(self.steps, self.rho), keep_best=self.keep_best)
        trace = descend(goal, task.clean, threat=task.threat, parts=parts, seeds=task.seeds, region=task.region)
        return replace(trace, forwards=trace.forwards + len(task))
