"""Goal: a task and an objective as the one function that the loop minimises.

One encoder pass serves all prompts of an image; per-prompt losses are averaged inside the image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redsam.attacks.loop import Evaluation
from redsam.attacks.task import Task
from redsam.models.values import Encoding, Select
from redsam.registry import Entry

# Half precision has no room for the small gradients of a mean over a million pixels; every step rule is blind to scale.
HALF_SCALE = 2.0**10


@dataclass(frozen=True, kw_only=True, eq=False)
class Goal:
    """task: images, prompts and references. objective: registry entry. clean: features of the clean images, for
    objectives on features. stop_at: an image has reached its goal when the IoU of each of its prompts with the
    reference is at most this (at least this, for an objective that aims towards its reference). look: is shown every
    pass on masks: images, active, then detached logits NxHxW, references NxHxW and the row of the image of each."""

    task: Task
    objective: Entry
    select: Select = "iou"
    stop_at: float | None = None
    clean: Tensor | None = None
    look: Callable[[Tensor, Sequence[int], Tensor, Tensor, Tensor], None] | None = None

    def __call__(self, images: Tensor, active: Sequence[int], progress: float) -> Evaluation:
        """`loop.Evaluate`."""
        encoding = self.task.encode(images)
        losses: list[Tensor] = []  # the loss, then what ranks it when that is something else
        reached = None
        if self.clean is not None:
            clean = self.clean if len(active) == len(self.clean) else self.clean[list(active)]
            losses = [self.objective.obj(encoding.features, clean)]
        if self.clean is None or self.stop_at is not None:
            reference = None if self.task.reference is None else [self.task.reference[i] for i in active]
            logits, owner = self.logits(encoding, active, reference)
            truth = torch.zeros_like(logits, dtype=torch.bool) if reference is None else torch.cat(reference)
            if self.clean is None:
                at = [progress, 1.0] if self.objective.meta.get("scheduled") else [progress]
                losses = [per_image(self.objective.obj(logits, truth, progress=p), owner, len(active)) for p in at]
            if self.look is not None:
                self.look(images.detach(), active, logits.detach(), truth, owner)
            if self.stop_at is not None:
                reached = self.reached(logits.detach() > 0, truth, owner, len(active), self.stop_at)
        scale = HALF_SCALE if self.task.segmenter.dtype == torch.float16 else 1.0
        return Evaluation(loss=losses[0] * scale, rank=losses[-1].detach(), reached=reached)

    @torch.no_grad()
    def judge(self, encoding: Encoding, active: Sequence[int]) -> Tensor | None:
        """n bool, whether the task's prompts have reached `stop_at`; None when nobody asked. For recipes whose loss
        is on something else."""
        if self.stop_at is None or self.task.reference is None:
            return None
        reference = [self.task.reference[i] for i in active]
        logits, owner = self.logits(encoding, active, reference)
        return self.reached(logits > 0, torch.cat(reference), owner, len(active), self.stop_at)

    def logits(
        self, encoding: Encoding, active: Sequence[int], reference: Sequence[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """NxHxW logits of the selected masks and for each the row of its image."""
        multimask = self.select != "single"
        prediction = self.task.segmenter.decode(encoding, [self.task.prompts[i] for i in active], multimask=multimask)
        logits = prediction.logits(select=self.select, reference=reference)
        owner = torch.tensor(prediction.owner, device=encoding.features.device)
        return torch.cat(logits), owner

    def reached(self, masks: Tensor, truth: Tensor, owner: Tensor, count: int, stop_at: float) -> Tensor:
        """n bool from NxHxW masks and references."""
        both = (masks & truth).flatten(1).sum(1).float()
        either = (masks | truth).flatten(1).sum(1).float()
        iou = torch.where(either > 0, both / either.clamp_min(1), torch.ones_like(both))
        towards = self.objective.meta.get("aim") == "towards"
        missed = (iou < stop_at) if towards else (iou > stop_at)
        return torch.zeros(count, device=masks.device).index_add_(0, owner, missed.float()) == 0


def per_image(losses: Tensor, owner: Tensor, count: int) -> Tensor:
    """N per-prompt losses to the mean of each of `count` images."""
    total = losses.new_zeros(count).index_add(0, owner, losses)
    return total / losses.new_zeros(count).index_add(0, owner, torch.ones_like(losses)).clamp_min(1)
