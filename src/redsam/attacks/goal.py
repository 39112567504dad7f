"""Goal: a segmenter, its prompts and an objective as the one function that the loop minimises.

One encoder pass serves all prompts of an image; per-prompt losses are averaged inside the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from redsam.attacks.loop import Evaluation
from redsam.models.base import Segmenter
from redsam.models.geometry import Frame
from redsam.models.values import Encoding, Select
from redsam.prompts import Prompt
from redsam.registry import Entry

# Half precision has no room for the small gradients of a mean over a million pixels; every step rule is blind to scale.
HALF_SCALE = 2.0**10


@dataclass(frozen=True, kw_only=True, eq=False)
class Goal:
    """objective: registry entry. prompts: per image. reference: per image bool P_i x H x W on the device, None when
    nothing looks at it. clean: features of the clean images, for objectives on features. stop_at: an image has reached
    its goal when the IoU of each of its prompts with the reference is at most this (at least this, for an objective
    that aims towards its reference). frame: set when the attacked images live in the model's own frame."""

    segmenter: Segmenter
    objective: Entry
    prompts: Sequence[Sequence[Prompt]]
    select: Select = "iou"
    reference: Sequence[Tensor] | None = None
    clean: Tensor | None = None
    stop_at: float | None = None
    frame: Frame | None = None

    def encode(self, images: Tensor) -> Encoding:
        """nx3xHxW, or nx3xhxw in the model's frame, to an Encoding whose masks come back in original pixels."""
        encoding = self.segmenter.encode(images)
        # In the model's frame the resize inside `encode` changes nothing; prompts and masks keep the original frame.
        return encoding if self.frame is None else replace(encoding, frames=(self.frame,) * len(images))

    def __call__(self, images: Tensor, active: Sequence[int], progress: float) -> Evaluation:
        """`loop.Evaluate`."""
        encoding = self.encode(images)
        losses: list[Tensor] = []  # the loss, then what ranks it when that is something else
        reached = None
        if self.clean is not None:
            clean = self.clean if len(active) == len(self.clean) else self.clean[list(active)]
            losses = [self.objective.obj(encoding.features, clean)]
        if self.clean is None or self.stop_at is not None:
            reference = None if self.reference is None else [self.reference[i] for i in active]
            logits, owner = self._logits(encoding, active, reference)
            truth = torch.zeros_like(logits, dtype=torch.bool) if reference is None else torch.cat(reference)
            if self.clean is None:
                at = [progress, 1.0] if self.objective.meta.get("scheduled") else [progress]
                losses = [_per_image(self.objective.obj(logits, truth, progress=p), owner, len(active)) for p in at]
            if self.stop_at is not None:
                reached = self._reached(logits.detach() > 0, truth, owner, len(active), self.stop_at)
        scale = HALF_SCALE if self.segmenter.dtype == torch.float16 else 1.0
        return Evaluation(loss=losses[0] * scale, rank=losses[-1].detach(), reached=reached)

    def _logits(
        self, encoding: Encoding, active: Sequence[int], reference: Sequence[Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """NxHxW logits of the selected masks and for each the row of its image."""
        multimask = self.select != "single"
        prediction = self.segmenter.decode(encoding, [self.prompts[i] for i in active], multimask=multimask)
        logits = prediction.logits(select=self.select, reference=reference)
        owner = torch.tensor(prediction.owner, device=encoding.features.device)
        return torch.cat(logits), owner

    def _reached(self, masks: Tensor, truth: Tensor, owner: Tensor, count: int, stop_at: float) -> Tensor:
        both = (masks & truth).flatten(1).sum(1).float()
        either = (masks | truth).flatten(1).sum(1).float()
        iou = torch.where(either > 0, both / either.clamp_min(1), torch.ones_like(both))
        towards = self.objective.meta.get("aim") == "towards"
        missed = (iou < stop_at) if towards else (iou > stop_at)
        return torch.zeros(count, device=masks.device).index_add_(0, owner, missed.float()) == 0


def _per_image(losses: Tensor, owner: Tensor, count: int) -> Tensor:
    """N per-prompt losses to the mean of each of `count` images."""
    total = losses.new_zeros(count).index_add(0, owner, losses)
    return total / losses.new_zeros(count).index_add(0, owner, torch.ones_like(losses)).clamp_min(1)
