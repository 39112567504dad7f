"""Clicks: ClipMSE over clicks of the attacker's own, whatever the user prompted (a shared part, not an attack)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from redsam import registry
from redsam.attacks.goal import HALF_SCALE, Goal
from redsam.attacks.loop import Evaluation
from redsam.attacks.task import Task
from redsam.models.prediction import Prediction
from redsam.models.values import Select
from redsam.objectives import vanish
from redsam.prompts import Prompt


@dataclass(frozen=True, kw_only=True, eq=False)
class Clicks:
    """`loop.Evaluate`: mean ClipMSE (mask removal) over `prompts` of each image, decoded from one encoder pass.

    select: which of a prompt's masks is lowered, "every" for all of them. stop_at: when the TASK's prompts count as
    reached, see `Goal`.
    """

    task: Task
    prompts: Sequence[Sequence[Prompt]]
    select: Select | Literal["every"] = "iou"
    user_select: Select = "iou"
    stop_at: float | None = None

    def __call__(self, images: Tensor, active: Sequence[int], progress: float) -> Evaluation:
        segmenter = self.task.segmenter
        encoding = self.task.encode(images)
        multimask = self.select != "single"
        prediction = segmenter.decode(encoding, [self.prompts[i] for i in active], multimask=multimask)
        logits = every_mask(prediction) if self.select == "every" else prediction.logits(select=self.select)
        loss = torch.stack([vanish(one, one > 0).mean() for one in logits])
        goal = Goal(
            task=self.task, objective=registry.get("objective", "vanish"), select=self.user_select, stop_at=self.stop_at
        )
        scale = HALF_SCALE if segmenter.dtype == torch.float16 else 1.0
        return Evaluation(loss=loss * scale, rank=loss.detach(), reached=goal.judge(encoding, active))


def every_mask(prediction: Prediction) -> list[Tensor]:
    """Per image all masks of all its prompts in original pixels: logits (P_i * M) x H_i x W_i."""
    out = []
    for i, frame in enumerate(prediction.frames):
        mine = [row for row, owner in enumerate(prediction.owner) if owner == i]
        out.append(frame.logits(prediction.low_res[mine]).flatten(0, 1))
    return out


def size_of(task: Task) -> tuple[int, int]:
    """(height, width) in original pixels, in which prompts and references are given."""
    if task.frame is not None:
        return task.frame.height, task.frame.width
    return int(task.clean.shape[-2]), int(task.clean.shape[-1])
