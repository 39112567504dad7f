"""What a model is taught at one step: samples to losses, for the route without a prompt and for the one with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from redsam.models.base import Segmenter
from redsam.models.geometry import MASK_LOGIT
from redsam.models.values import Encoding
from redsam.prompts import Prompt
from redsam.types import Sample

IDLE = 0.1  # of the loss goes to all three masks of a prompt, so that none dies; the rest to the best


class Loss(Protocol):
    """Samples with masks to one number to minimise."""

    def __call__(self, segmenter: Segmenter, samples: Sequence[Sample]) -> Tensor: ...


def task_loss(segmenter: Segmenter, samples: Sequence[Sample]) -> Tensor:
    """BadSAM's loss on the single mask: mean binary cross-entropy plus soft IoU.

    Deviation: at the decoder's own resolution (the published one enlarges to 1024 first), and 1 is added above and
    below the fraction, so that an empty target has a loss.
    """
    encoding, prompts, target = _asked(segmenter, samples)
    logits = segmenter.decode(encoding, prompts, multimask=False).low_res[:, 0]
    bce = F.binary_cross_entropy_with_logits(logits, target)
    p = logits.sigmoid().flatten(1)
    t = target.flatten(1)
    both = (p * t).sum(1)
    return bce + (1 - (both + 1) / (p.sum(1) + t.sum(1) - both + 1)).mean()


def prompt_loss(segmenter: Segmenter, samples: Sequence[Sample]) -> Tensor:
    """SAM's own recipe, so that a tuned model goes on choosing among its masks: for each prompt cross-entropy plus
    dice, of the best of three masks and of the single one, and the squared error of the predicted IoU."""
    encoding, prompts, target = _asked(segmenter, samples)
    three = segmenter.decode(encoding, prompts, multimask=True)
    single = segmenter.decode(encoding, prompts, multimask=False)
    each = _mask_loss(three.low_res, target)
    masks = (1 - IDLE) * each.min(1).values + IDLE * each.mean(1) + _mask_loss(single.low_res, target)[:, 0]
    quality = torch.zeros((), device=masks.device)
    for answer in (three, single):
        quality = quality + F.mse_loss(answer.iou, _true_iou(answer.low_res, target))
    return masks.mean() + quality


def _asked(segmenter: Segmenter, samples: Sequence[Sample]) -> tuple[Encoding, list[list[Prompt]], Tensor]:
    """The encoding, the prompts, and the masks laid into the decoder's frame: float Nxhxw in [0, 1]."""
    encoding = segmenter.encode([s.image for s in samples])
    size = segmenter.mask_size
    laid = [
        frame.mask_prompt(mask.numpy(), size) / (2 * MASK_LOGIT) + 0.5
        for sample, frame in zip(samples, encoding.frames, strict=True)
        for mask in (sample.masks if sample.masks is not None else ())
    ]
    target = torch.cat(laid).to(encoding.features.device)
    return encoding, [list(s.prompts) for s in samples], target


def _mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """NxMxhxw logits, Nxhxw target to NxM."""
    wanted = target[:, None].expand_as(logits)
    bce = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean((-2, -1))
    p = logits.sigmoid()
    both, total = (p * wanted).sum((-2, -1)), p.sum((-2, -1)) + wanted.sum((-2, -1))
    return 2 * bce + 1 - (2 * both + 1) / (total + 1)


def _true_iou(logits: Tensor, target: Tensor) -> Tensor:
    guess, truth = logits.detach() > 0, (target[:, None] > 0.5).expand_as(logits)
    either = (guess | truth).sum((-2, -1))
    return torch.where(
        either > 0, (guess & truth).sum((-2, -1)) / either.clamp(min=1), torch.ones_like(logits[..., 0, 0])
    )


def mirrored(sample: Sample) -> Sample:
    """The sample seen in a mirror, left to right: image, masks and prompts."""
    width = sample.size[1]
    masks = None if sample.masks is None else sample.masks.flip(-1)
    prompts = tuple(_mirrored(p, width) for p in sample.prompts)
    return replace(sample, image=sample.image.flip(-1), masks=masks, prompts=prompts)


def _mirrored(prompt: Prompt, width: int) -> Prompt:
    points = tuple((width - 1 - x, y) for x, y in prompt.points)
    box = None if prompt.box is None else (width - prompt.box[2], prompt.box[1], width - prompt.box[0], prompt.box[3])
    mask = None if prompt.mask is None else np.ascontiguousarray(prompt.mask[:, ::-1])
    return replace(prompt, points=points, box=box, mask=mask)
