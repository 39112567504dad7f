"""Prediction: all masks of all prompts, and which of a prompt's masks is the answer: highest predicted IoU, largest
area, best against a reference, or single."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redsam.errors import InputError
from redsam.models.geometry import Frame
from redsam.models.values import Select


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """Masks of N prompts over B images, still in the model's own low-resolution frame.

    low_res: NxMxhxw logits (M masks per prompt). iou: NxM predicted IoU. owner: N, the image each prompt belongs to, in
    image order, prompts of one image in the order given. `logits` brings them to original pixels.
    """

    low_res: Tensor
    iou: Tensor
    owner: tuple[int, ...]
    frames: tuple[Frame, ...]

    def logits(self, *, select: Select = "iou", reference: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Per image the P_i x H_i x W_i logits of the selected mask. `reference` (bool P_i x H_i x W_i) for "best"."""
        return select_logits(self, select=select, reference=reference)[0]


def select_logits(
    prediction: Prediction, *, select: Select = "iou", reference: Sequence[Tensor] | None = None
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Per image: logits P x H x W of the chosen mask (with gradients), choice P (int64), predicted IoU P.

    The choice itself carries no gradient. Ties go to the lower index. Only the chosen mask is brought to original
    pixels unless the rule needs all of them there ("area" and "best" compare masks in original pixels).
    """
    count = prediction.low_res.shape[1]
    if select not in ("iou", "area", "best", "single"):
        raise InputError(f"There is no selection rule '{select}'.", hint="Known: iou, area, best, single.")
    if select == "single" and count != 1:
        raise InputError("select='single' needs the single-mask output.", hint="Decode with multimask=False.")
    if select == "best" and (reference is None or len(reference) != len(prediction.frames)):
        raise InputError("select='best' needs one reference (bool PxHxW) for each image.")
    logits, choices, ious = [], [], []
    owner = torch.tensor(prediction.owner, device=prediction.low_res.device)
    for i, frame in enumerate(prediction.frames):
        mine = torch.nonzero(owner == i).flatten()
        low_res, iou = prediction.low_res[mine], prediction.iou[mine]
        if not len(mine):
            choice = mine
        elif count == 1:
            choice = torch.zeros_like(mine)
        elif select == "iou":
            choice = iou.detach().argmax(1)
        else:
            with torch.no_grad():
                masks = frame.logits(low_res) > 0
                wanted = reference[i].to(masks.device) if select == "best" and reference is not None else None
                choice = (_overlap(masks, wanted) if wanted is not None else masks.sum((2, 3))).argmax(1)
        rows = torch.arange(len(mine), device=mine.device)
        if len(mine):
            logits.append(frame.logits(low_res[rows, choice][:, None])[:, 0])
        else:
            logits.append(low_res.new_zeros((0, frame.height, frame.width)))
        choices.append(choice)
        ious.append(iou[rows, choice])
    return logits, choices, ious


def _overlap(masks: Tensor, reference: Tensor) -> Tensor:
    """PxM IoU of bool PxMxHxW with bool PxHxW; 1 where both are empty."""
    if reference.shape != (masks.shape[0], *masks.shape[2:]):
        raise InputError(f"The reference is {tuple(reference.shape)}, the masks {tuple(masks.shape)}.")
    both = (masks & reference[:, None]).sum((2, 3)).double()
    either = (masks | reference[:, None]).sum((2, 3)).double()
    return torch.where(either > 0, both / either.clamp(min=1), torch.ones_like(both))
