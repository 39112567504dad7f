"""What FGSM* and FIGA share: the goals with their stop rules, and which pixels a step may change."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from redsam import registry
from redsam.attacks.base import Attack
from redsam.attacks.goal import HALF_SCALE, Goal, per_image
from redsam.attacks.gradient import follow
from redsam.attacks.loop import Evaluation, Parts, Rule, State, Trace
from redsam.attacks.parts import zero
from redsam.attacks.task import Task
from redsam.data.images import read_image
from redsam.errors import InputError
from redsam.models.values import Select

Aim = Literal["reverse", "zero", "custom"]
# The official notebook: at most so many steps, and where each goal counts as reached.
STEPS = {"reverse": 25, "zero": 25, "custom": 150}
REACHED = {"reverse": 0.01, "zero": 0.01, "custom": 0.98}


@dataclass(frozen=True, kw_only=True)
class AimedAttack(Attack):
    """Sign steps on ||sigmoid(logits) - Y||^2 (its mean: a sign is blind to scale), rounded to 8 bits after each.

    goal: "reverse" (Y is all but the clean mask, until IoU with the clean mask < 0.01), "zero" (Y is empty, until under
    0.01 of the image is masked) or "custom" (Y is `target`, an image file, masked where it is not black, until IoU
    with it > 0.98). stop_at replaces that number. steps None is the goal's own 25, 25 or 150. step_size 1/255.
    There is no ball of its own, as published: the threat is the only bound (eps 25/255 lets "zero" run free).
    select "single", the decoder's single mask, and the last iterate (`keep_best` False), as published.
    """

    goal: Aim = "reverse"
    target: str = ""
    steps: int | None = None
    step_size: float = 1 / 255
    select: Select = "single"
    keep_best: bool = False

    def needs_reference(self) -> bool:
        """The mask to reverse."""
        return self.goal == "reverse" or self.select == "best"

    @abstractmethod
    def rule(self, task: Task) -> Rule:
        """Which values a step changes."""

    def search(self, task: Task) -> Trace:
        """The gradient loop towards the goal's own mask."""
        aimed = Aimed(task=task, goal=self.goal, wanted=self._wanted(task), select=self.select, bound=self._bound())
        steps = STEPS[self.goal] if self.steps is None else self.steps
        parts = Parts(steps=steps, start=zero, rule=self.rule(task), keep_best=self.keep_best, lattice=True)
        return follow(aimed, task, parts)

    def _bound(self) -> float:
        return REACHED[self.goal] if self.stop_at is None else self.stop_at

    def _wanted(self, task: Task) -> list[Tensor]:
        """Per image bool P x H x W in original pixels: Y."""
        if self.goal not in STEPS:
            raise InputError(f"There is no goal '{self.goal}'.", hint=f"Choose from {', '.join(STEPS)}.")
        if self.goal == "reverse":
            return [~masks for masks in task.reference or ()]
        size = original_size(task)
        if self.goal == "zero":
            one = torch.zeros(size, dtype=torch.bool)
        elif not self.target:
            raise InputError("The goal 'custom' needs a target mask.", hint="Type: --set target=MASK.png")
        else:
            one = drawn(self.target, size)
        return [one.to(task.clean.device).expand(len(prompts), -1, -1) for prompts in task.prompts]


def drawn(path: str, size: tuple[int, int]) -> Tensor:
    """HxW bool of an image file: where it is not black. Raises InputError unless it has (height, width) `size`."""
    picture = read_image(path)
    if tuple(picture.shape[1:]) != size:
        raise InputError(
            f"{path}: the target mask is {picture.shape[2]} x {picture.shape[1]}, the image {size[1]} x {size[0]}.",
            hint="Resize the mask to the image (nearest neighbour).",
        )
    return (picture > 0).any(0)


def original_size(task: Task) -> tuple[int, int]:
    """(height, width) in original pixels, in which masks come back."""
    height, width = task.clean.shape[-2:] if task.frame is None else (task.frame.height, task.frame.width)
    return int(height), int(width)


@dataclass(frozen=True, kw_only=True, eq=False)
class Aimed:
    """`loop.Evaluate` for a goal. wanted: per image bool P x H x W. bound: where the goal counts as reached, for every
    prompt of an image."""

    task: Task
    goal: Aim
    wanted: Sequence[Tensor]
    select: Select
    bound: float

    def __call__(self, images: Tensor, active: Sequence[int], progress: float) -> Evaluation:
        mse = registry.get("objective", "mse")
        given = self.task.reference
        reference = None if given is None else [given[i] for i in active]
        goal = Goal(task=self.task, objective=mse, select=self.select)
        logits, owner = goal.logits(self.task.encode(images), active, reference)
        wanted = torch.cat([self.wanted[i] for i in active])
        losses = per_image(mse.obj(logits, wanted, progress=1.0), owner, len(active))
        missed = (~self._reached(logits.detach() > 0, wanted)).float()
        left = torch.zeros(len(active), device=logits.device).index_add_(0, owner, missed)
        scale = HALF_SCALE if self.task.segmenter.dtype == torch.float16 else 1.0
        return Evaluation(loss=losses * scale, rank=losses.detach(), reached=left == 0)

    def _reached(self, masks: Tensor, wanted: Tensor) -> Tensor:
        """N bool from NxHxW masks."""
        if self.goal == "zero":
            return masks.flatten(1).double().mean(1) < self.bound
        against = ~wanted if self.goal == "reverse" else wanted
        both = (masks & against).flatten(1).sum(1).double()
        either = (masks | against).flatten(1).sum(1).double()
        # Two empty masks are one: nothing to reverse counts as not reached, an empty target as reached.
        iou = torch.where(either > 0, both / either.clamp_min(1), torch.ones_like(both))
        return iou < self.bound if self.goal == "reverse" else iou > self.bound


def focused(count: int, step_size: float, *, values: bool) -> Rule:
    """x - step_size * sign(gradient) on the `count` most salient pixels (a pixel's largest |gradient| among its
    channels) or single values; chosen anew in each step among those that can move and whose gradient is not zero.

    Under an l0 threat every pixel ever changed counts (memory["used"]); once the budget is spent only those change.
    """

    def rule(gradient: Tensor, state: State) -> Tensor:
        step = step_size * gradient.sign()
        x = state.x
        inside = (x - step).clamp(0, 1)
        if state.threat.norm == "linf":
            inside = state.project(inside)
        elif state.region is not None:
            inside = torch.where(state.region, inside, x)
        # Values at the edge stand still: without this k = 1 would look at one of them forever (half a grey level).
        movable = (inside - x).abs() > 0.5 / 255
        size = gradient.abs() * movable
        score = (size if values else size.amax(1, keepdim=True)).flatten(1)
        allowed, order = _ranked(score, state, gradient.shape[1] if values else 1)
        first = allowed & (allowed.cumsum(1) <= count)
        chosen = torch.zeros_like(score, dtype=torch.bool).scatter_(1, order, first)
        chosen = chosen.view(-1, gradient.shape[1] if values else 1, *gradient.shape[2:])
        if state.threat.norm == "l0":
            state.memory["used"] = state.memory["used"] | (chosen & movable).any(1).flatten(1)
        return torch.where(chosen, x - step, x)

    return rule


def _ranked(score: Tensor, state: State, channels: int) -> tuple[Tensor, Tensor]:
    """Scores nxM, largest first: which may be taken (nxM bool in that order), and the order (nxM)."""
    order = score.argsort(dim=1, descending=True, stable=True)
    allowed = score.gather(1, order) > 0
    if state.threat.norm != "l0":
        return allowed, order
    pixels = score.shape[1] // channels
    used = state.memory.setdefault("used", torch.zeros_like(score[:, :pixels], dtype=torch.bool))
    pixel = order % pixels  # values count channel by channel
    # A pixel costs its budget once: at the first of its values that comes up.
    place = torch.arange(score.shape[1], device=score.device).expand_as(order)
    far = torch.full_like(order[:, :pixels], score.shape[1])
    first = far.scatter_reduce(1, pixel, torch.where(allowed, place, score.shape[1]), "amin")
    fresh = allowed & ~used.gather(1, pixel) & (first.gather(1, pixel) == place)
    left = int(state.threat.eps) - used.sum(1, keepdim=True)
    affordable = fresh.cumsum(1) <= left  # at the place where a pixel is first met
    bought = affordable.gather(1, first.gather(1, pixel).clamp_max(score.shape[1] - 1))
    return allowed & (used.gather(1, pixel) | bought), order
