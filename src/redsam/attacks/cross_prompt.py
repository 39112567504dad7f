"""Cross-prompt PGD: one perturbation against points, boxes and masks at once (after Robust SAM, Long et al., 2025)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from redsam import registry
from redsam.attacks.draws import KINDS, kinds_of, minibatches, stream, subjects
from redsam.attacks.goal import HALF_SCALE, Goal
from redsam.attacks.gradient import GradientAttack
from redsam.attacks.loop import Evaluate, Evaluation, Parts
from redsam.attacks.parts import fixed_step, uniform
from redsam.attacks.task import Task
from redsam.errors import InputError
from redsam.models.geometry import Frame
from redsam.models.values import Select
from redsam.prompts import Prompt
from redsam.registry import register
from redsam.threat import Threat

# Prompts decoded a step, one of each kind: more than this cost over half a PGD step on lab-b, because every kind is a
# decoder call of its own (benchmarks/cross_prompt_speed.py).
PER_STEP = 3


@register("attack", "cross-prompt", paper="Robust SAM (Long et al.)", year=2025, norms=("linf", "l2"),
          url="https://arxiv.org/abs/2504.08906", kind="white-box", knowledge=("white-box", "transfer"), noisy=True,
          cost="steps gradients of the encoder, per_step of the decoder each")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class CrossPrompt(GradientAttack):
    """PGD on the expectation of a mask objective over random points, boxes and rough masks of the task's objects.

    The task's prompts say which objects; their reference masks (clean predictions unless given, always so when the
    objective aims towards a reference) are what prompts are drawn from. Each step encodes once and decodes `per_step`
    fresh prompts, so its gradient is a sample of the gradient of the whole expectation. prompts: size of a pool, drawn
    balanced over kinds and objects, gone through in parts and then drawn anew; per_step None decodes a whole new pool
    at every step. kinds: of "point", "box", "mask"; "mask" is left out where the model takes none.
    resolution: "low" takes the loss on the decoder's own mask, padding cut off; "full" on original pixels.
    An object whose reference is empty is asked by the task's own prompt. An objective on features needs no prompts:
    this is then PGD.

    Deviation: the paper's loss, prompt sampling and settings were not recovered; the expectation, the draws and the
    pool are a reconstruction, ours and not the paper's. The objective is Dice because its losses are of one size for
    every kind of prompt: under ClipMSE ("vanish") the kind with the largest logits takes the whole gradient, and the
    attack is weaker than PGD made for a single kind (docs/attacks.md). eps 8/255, 2/255 (step_size None is eps / 4) and
    40 steps are what the neighbouring papers use. keep_best is off, because losses of different prompts do not compare.
    """

    objective: str = "dice"
    steps: int = 40
    step_size: float | None = None
    random_start: bool = True
    kinds: tuple[str, ...] = KINDS
    prompts: int = 64
    per_step: int | None = PER_STEP
    resolution: Literal["low", "full"] = "low"
    keep_best: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", tuple(self.kinds))  # a list, as it comes back from JSON
        wrong = [kind for kind in self.kinds if kind not in KINDS]
        if wrong or not self.kinds:
            raise InputError(
                f"kinds={','.join(self.kinds) or 'nothing'} cannot be drawn.", hint=f"Choose from {', '.join(KINDS)}."
            )
        if self.prompts < 1 or (self.per_step is not None and self.per_step < 1):
            raise InputError(
                f"prompts={self.prompts} with per_step={self.per_step} leaves none to decode.", hint="Give 1 or more."
            )
        if self.resolution not in ("low", "full"):
            raise InputError(f"There is no resolution '{self.resolution}'.", hint="Choose low or full.")

    def parts(self, threat: Threat) -> Parts:
        size = self.step_size if self.step_size is not None else threat.eps / 4
        start = uniform if self.random_start else self.clean_start()
        return Parts(steps=self.steps, start=start, rule=fixed_step(size), keep_best=self.keep_best)

    def needs_reference(self) -> bool:
        """Prompts are drawn from it."""
        return self.reads_masks() or super().needs_reference()

    def evaluator(self, task: Task) -> Evaluate:
        objective = registry.get("objective", self.objective)
        if objective.meta["on"] == "feature" or task.reference is None:
            return super().evaluator(task)
        objects = task.reference
        if objective.meta.get("aim") == "towards":  # the reference is where masks should go, not where the objects are
            first: Select = "iou" if self.select == "best" else self.select
            with torch.no_grad():
                found = task.segmenter.decode(task.encode(task.clean), task.prompts, multimask=first != "single")
                objects = [logits > 0 for logits in found.logits(select=first)]
        kinds, sizes = kinds_of(task.segmenter, self.kinds), minibatches(self.prompts, self.per_step)
        return Expectation(
            goal=Goal(task=task, objective=objective, select=self.select, stop_at=self.stop_at),
            low=self.resolution == "low", reference=task.reference,
            draws=[
                stream(subjects(masks, given), kinds, sizes, random)
                for masks, given, random in zip(objects, task.prompts, task.generators("cross-prompt"), strict=True)
            ],
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Expectation:
    """`loop.Evaluate`: the mean objective of the next prompts of each image's stream (draws.py).

    goal: what is asked, and whether the task's own prompts have reached its `stop_at` (one more decoder call). low: the
    loss on the decoder's own resolution. reference: per image bool P_i x H x W, by the index of the object.
    """

    goal: Goal
    low: bool
    reference: Sequence[Tensor]
    draws: Sequence[Iterator[list[tuple[Prompt, int]]]]

    def __call__(self, images: Tensor, active: Sequence[int], progress: float) -> Evaluation:
        segmenter, objective, select = self.goal.task.segmenter, self.goal.objective, self.goal.select
        encoding = self.goal.task.encode(images)
        drawn = [next(self.draws[i]) for i in active]
        asked = [[prompt for prompt, _ in row] for row in drawn]
        prediction = segmenter.decode(encoding, asked, multimask=select != "single")
        frames = prediction.frames
        if self.low:
            frames = tuple(_coarse(frame, prediction.low_res.shape[-1]) for frame in frames)
        truth = [
            _shrink(self.reference[i], frame)[[index for _, index in row]]
            for i, row, frame in zip(active, drawn, frames, strict=True)
        ]
        logits = torch.cat(replace(prediction, frames=frames).logits(select=select, reference=truth))
        wanted = torch.cat(truth)
        at = [progress, 1.0] if objective.meta.get("scheduled") else [progress]
        losses = [objective.obj(logits, wanted, progress=p).view(len(active), -1).mean(1) for p in at]
        scale = HALF_SCALE if segmenter.dtype == torch.float16 else 1.0
        reached = self.goal.judge(encoding, active)
        return Evaluation(loss=losses[0] * scale, rank=losses[-1].detach(), reached=reached)


def _coarse(frame: Frame, side: int) -> Frame:
    """The frame of the same picture as small as a decoder of this side draws it: its masks need no resizing, only the
    padding is cut off."""
    height, width = replace(frame, side=side).content
    return replace(frame, side=side, height=height, width=width)


def _shrink(masks: Tensor, frame: Frame) -> Tensor:
    """bool PxHxW to the frame's size: set where at least half of what a pixel covers is."""
    size = (frame.height, frame.width)
    if tuple(masks.shape[-2:]) == size:
        return masks
    return F.interpolate(masks.float()[:, None], size, mode="area")[:, 0] >= 0.5
