"""UniversalAttack: one perturbation for all images, learned by `universal_training.train` and kept as an artefact.

With `artefact` the attack lays that perturbation onto each image and looks at no gradient. Without, `search` makes the
perturbation from the image alone, by the recipe's own loss in the one gradient loop: the image-specific variant that
papers on universal attacks report beside theirs.
A recipe fills `evaluator`, its loss. It may fill `smooth` (what becomes of a gradient) and `learn` (what one training
image does to the perturbation). Nothing here reads the user's prompts: a recipe prompts the image itself.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from redsam import registry
from redsam.attacks.artefact import Artefact, Fit, lay
from redsam.attacks.base import Attack
from redsam.attacks.goal import HALF_SCALE, Goal
from redsam.attacks.loop import NON_FINITE, Evaluate, Evaluation, Parts, Trace, descend
from redsam.attacks.parts import fixed_step, uniform, zero
from redsam.attacks.task import Task
from redsam.errors import InputError
from redsam.threat import Threat

# What a recipe remembers from image to image and from step to step, saved with an unfinished training.
Memory = dict[str, Tensor]


class Unusable(Exception):
    """A training image that cannot be learned from; it is recorded with this reason."""


@dataclass(kw_only=True, eq=False)
class Lesson:
    """One training image's turn. task: that image (B = 1), its seed drawn for this turn. fit: how the perturbation is
    laid onto it. count: training images in one epoch. gradients: passes taken so far."""

    task: Task
    fit: Fit
    count: int
    gradients: int = 0

    def images(self, delta: Tensor) -> Tensor:
        """1x3xHxW with delta 3xSxS on it, differentiable."""
        return (self.task.clean + lay(delta, (self.task.clean.shape[-2], self.task.clean.shape[-1]), self.fit)).clamp(
            0, 1
        )

    def slope(self, evaluate: Evaluate, delta: Tensor, progress: float) -> tuple[Evaluation, Tensor]:
        """The evaluation of the perturbed image and its gradient with regard to delta."""
        delta = delta.detach().requires_grad_(True)
        result = evaluate(self.images(delta), [0], progress)
        (gradient,) = torch.autograd.grad(result.loss.sum(), delta)
        self.gradients += 1
        if not bool(gradient.isfinite().all()):
            raise Unusable(NON_FINITE)
        return result, gradient

    def clip(self, delta: Tensor) -> Tensor:
        """Into the threat's ball."""
        eps = self.task.threat.eps
        return delta.detach().clamp(-eps, eps)


@dataclass(frozen=True, kw_only=True)
class UniversalAttack(Attack):
    """artefact: file of a trained perturbation; one of a larger eps than the threat's is projected, and a flag says so.
    fit: how it is laid onto an image, "stretch" or "tile". steps: gradient steps of the image-specific variant.
    step_size: of both, [0, 1] units. epochs, inner: passes over the training images, gradient steps on each."""

    artefact: str | None = None
    fit: Fit = "stretch"
    steps: int = 40
    step_size: float = 1 / 255
    epochs: int = 1
    inner: int = 1

    # Whether the loss has no gradient at the clean image, so that the perturbation begins at random.
    begins_at_random: ClassVar[bool] = False

    # --- hooks -------------------------------------------------------------------------------------------------------
    @abstractmethod
    def evaluator(self, task: Task, memory: Memory) -> Evaluate:
        """The loss to minimise on perturbed images; what is drawn comes from `task.generators`."""

    def smooth(self, gradient: Tensor, memory: Memory) -> Tensor:
        """What becomes of a gradient (batch first) before its sign is taken; `memory` lasts from step to step."""
        return gradient

    def learn(self, delta: Tensor, lesson: Lesson, memory: Memory) -> Tensor:
        """The next 3xSxS perturbation after one training image: `inner` sign steps."""
        evaluate = self.half_safe(lesson.task, memory)
        for step in range(self.inner):
            _, gradient = lesson.slope(evaluate, delta, step / self.inner)
            delta = lesson.clip(delta - self.step_size * self.smooth(gradient[None], memory)[0].sign())
        return delta

    def parts(self, threat: Threat) -> Parts:
        """The image-specific variant in the one loop."""
        return Parts(
            steps=self.steps, start=uniform if self.begins_at_random else zero, rule=fixed_step(self.step_size),
            gradients=(lambda gradient, state: self.smooth(gradient, state.memory),), keep_best=self.keep_best,
        )  # fmt: skip

    # --- what every recipe does --------------------------------------------------------------------------------------
    def reads_masks(self) -> bool:
        """Only to see whether a goal is reached."""
        return False

    def begin(self, size: int, eps: float, generator: torch.Generator) -> Tensor:
        """The first 3xSxS perturbation of a training."""
        shape = (3, size, size)
        return (torch.rand(shape, generator=generator) * 2 - 1) * eps if self.begins_at_random else torch.zeros(shape)

    def half_safe(self, task: Task, memory: Memory) -> Evaluate:
        """`evaluator` with the loss scaled where half precision would lose its gradient; signs do not change."""
        evaluate = self.evaluator(task, memory)
        if task.segmenter.dtype != torch.float16:
            return evaluate

        def scaled(images: Tensor, active: Sequence[int], progress: float) -> Evaluation:
            result = evaluate(images, active, progress)
            return result._replace(loss=result.loss * HALF_SCALE)

        return scaled

    def search(self, task: Task) -> Trace:
        """The perturbation of the artefact, or of the image itself."""
        if self.artefact is not None:
            return self.apply(task, self.loaded(task.threat))
        return self.from_image(task, self.parts(task.threat))

    def loaded(self, threat: Threat) -> Artefact:
        """The artefact. Raises InputError when it cannot be used."""
        artefact = Artefact.load(str(self.artefact))
        if artefact.norm != threat.norm:
            raise InputError(f"{self.artefact} is bounded in {artefact.norm}, the threat in {threat.norm}.")
        return artefact

    def apply(self, task: Task, artefact: Artefact) -> Trace:
        """Lay it onto the images; one forward pass measures the recipe's loss there."""
        size = (task.clean.shape[-2], task.clean.shape[-1])
        delta = artefact.on(size, self.fit).to(task.clean)
        images = task.threat.project(task.clean + delta, task.clean, task.region)
        with torch.no_grad():
            result = self.evaluator(task, {})(images, list(range(len(task))), 1.0)
        larger = artefact.eps > task.threat.eps * (1 + 1e-6)
        flag = f"a perturbation of eps {artefact.eps * 255:.3g}/255 was projected" if larger else ""
        count = len(task)
        return Trace(
            images=images, losses=result.rank[None].cpu(), steps=(0,) * count, gradients=0, forwards=count,
            flags=(flag,) * count,
        )  # fmt: skip

    def from_image(self, task: Task, parts: Parts) -> Trace:
        """The image-specific variant."""
        queries = task.threat.queries
        if parts.steps < 1:
            raise InputError(f"An attack of {parts.steps} steps does nothing.", hint="Give at least 1 step.")
        if queries is not None and parts.steps + 1 > queries:
            raise InputError(
                f"{parts.steps} steps need {parts.steps + 1} forward passes, the threat grants {queries}.",
                hint=f"Give at most {max(queries - 1, 0)} steps or more queries.",
            )
        evaluate = self._until_reached(task, self.half_safe(task, {}))
        return descend(
            evaluate, task.clean, threat=task.threat, parts=parts, seeds=task.seeds, region=task.region
        )  # fmt: skip

    def _until_reached(self, task: Task, evaluate: Evaluate) -> Evaluate:
        """With `stop_at`, also look whether the user's prompts lost their masks: one more pass for each step."""
        if self.stop_at is None:
            return evaluate
        goal = Goal(
            task=task, objective=registry.get("objective", "bce"), select=self.select, stop_at=self.stop_at
        )  # fmt: skip

        def watched(images: Tensor, active: Sequence[int], progress: float) -> Evaluation:
            with torch.no_grad():
                reached = goal(images.detach(), active, progress).reached
            return evaluate(images, active, progress)._replace(reached=reached)

        return watched


def momentum(decay: float, gradient: Tensor, memory: Memory) -> Tensor:
    """decay * m + (1 - decay) * gradient, remembered in `memory`; begins at the first gradient."""
    if "momentum" in memory:
        gradient = decay * memory["momentum"] + (1 - decay) * gradient
    memory["momentum"] = gradient
    return gradient


def rows(values: Tensor, active: Sequence[int]) -> Tensor:
    """The active images' rows."""
    return values if len(active) == len(values) else values[list(active)]
