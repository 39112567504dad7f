"""What a hardened model is taught: the annotated masks, on clean and on attacked images alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from redsam.models.geometry import Frame
from redsam.models.prediction import Prediction


def mask_loss(prediction: Prediction, truth: Sequence[Tensor]) -> Tensor:
    """Mean over prompts of DiceCE plus the squared error of predicted IoU. truth: per image bool P_i x H x W.

    DiceCE (binary cross-entropy + soft Dice, as SAM-PARSER has it) is taken on the decoder's own low-resolution masks,
    padding cut off: half on the mask the user would get (highest predicted IoU), half on the best of all masks, as SAM
    was trained, so that no output dies. Predicted IoU is what picks the answer, so it is taught as well, on every mask.
    """
    owner = torch.tensor(prediction.owner, device=prediction.low_res.device)
    losses: list[Tensor] = []
    for i, frame in enumerate(prediction.frames):
        mine = torch.nonzero(owner == i).flatten()
        if not len(mine):
            continue
        height, width = own_size(frame, prediction.low_res.shape[-1])
        logits, predicted = prediction.low_res[mine][..., :height, :width], prediction.iou[mine]
        target = F.interpolate(truth[i].to(logits)[:, None], (height, width), mode="area")
        each = dice_ce(logits, target.expand_as(logits))
        true = overlap(logits.detach() > 0, target > 0.5)
        rows = torch.arange(len(mine), device=mine.device)
        answer = each[rows, predicted.detach().argmax(1)]
        losses.append((answer + each.min(1).values) / 2 + (predicted - true).square().mean(1))
    return torch.cat(losses).mean()


def dice_ce(logits: Tensor, target: Tensor) -> Tensor:
    """NxMxhxw logits and targets in [0, 1] to NxM: mean cross-entropy + 1 - (2 sum pt + 1) / (sum p + sum t + 1)."""
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((-2, -1))
    p = logits.sigmoid()
    dice: Tensor = 1 - (2 * (p * target).sum((-2, -1)) + 1) / (p.sum((-2, -1)) + target.sum((-2, -1)) + 1)
    return bce + dice


def overlap(guess: Tensor, truth: Tensor) -> Tensor:
    """IoU of bool NxMxhxw with Nx1xhxw, NxM; both empty is 1."""
    both, either = (guess & truth).sum((-2, -1)).float(), (guess | truth).sum((-2, -1)).float()
    return torch.where(either > 0, both / either.clamp(min=1), torch.ones_like(both))


def own_size(frame: Frame, side: int) -> tuple[int, int]:
    """(height, width) that the image fills in the decoder's own side x side masks."""
    return replace(frame, side=side).content
