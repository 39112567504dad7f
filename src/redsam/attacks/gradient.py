"""ObjectiveAttack minimises a registered objective; GradientAttack does so in the one gradient loop."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch

from redsam import registry
from redsam.attacks.base import Attack
from redsam.attacks.goal import Goal
from redsam.attacks.loop import Evaluate, Parts, Start, Trace, descend
from redsam.attacks.parts import uniform, zero
from redsam.attacks.task import Task
from redsam.errors import InputError
from redsam.threat import Threat


@dataclass(frozen=True, kw_only=True)
class ObjectiveAttack(Attack):
    """objective: registry name, minimised, by whatever means."""

    objective: str = "vanish"

    def evaluator(self, task: Task) -> Evaluate:
        """The function to minimise: the objective over the task's prompts."""
        objective = registry.get("objective", self.objective)
        clean = None
        if objective.meta["on"] == "feature":
            with torch.no_grad():
                clean = task.encode(task.clean).features.detach()
        return Goal(task=task, objective=objective, select=self.select, stop_at=self.stop_at, clean=clean)

    def reads_masks(self) -> bool:
        """An objective on features is prompt-free."""
        return bool(registry.get("objective", self.objective).meta["on"] == "mask")

    def needs_reference(self) -> bool:
        """An objective that is not blind compares with it."""
        return super().needs_reference() or (
            self.reads_masks() and not registry.get("objective", self.objective).meta.get("blind")
        )


@dataclass(frozen=True, kw_only=True)
class GradientAttack(ObjectiveAttack):
    """Follows gradients. A recipe fills `parts`; one with a loss of its own also `evaluator`."""

    @abstractmethod
    def parts(self, threat: Threat) -> Parts:
        """The recipe: parts of the loop for this threat."""

    def search(self, task: Task) -> Trace:
        """The gradient loop."""
        return follow(self.evaluator(task), task, self.parts(task.threat))

    def clean_start(self) -> Start:
        """The clean image, or a random point for objectives on features, whose gradient is zero at the clean image."""
        return zero if self.reads_masks() else uniform


def follow(evaluate: Evaluate, task: Task, parts: Parts) -> Trace:
    """`descend` around a task's images, after a look at whether the steps make sense and the threat grants them."""
    queries = task.threat.queries
    if parts.steps < 1:
        raise InputError(f"An attack of {parts.steps} steps does nothing.", hint="Give at least 1 step.")
    needed = parts.steps * parts.passes + 1
    if queries is not None and needed > queries:
        raise InputError(
            f"{parts.steps} steps need {needed} forward passes, the threat grants {queries}.",
            hint=f"Give at most {max(queries - 1, 0) // parts.passes} steps or more queries.",
        )
    return descend(evaluate, task.clean, threat=task.threat, parts=parts, seeds=task.seeds, region=task.region)
