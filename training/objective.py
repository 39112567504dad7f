"""What a lab model is taught at one step: prompts of every kind on every object, losses on all four mask tokens."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from forward import decode_all, embed
from packed import Batch, exact_boxes, random_points
from torch import Tensor

# Of the objects of an image, this many are asked for by ... (the rest by several points; the last one by a rough mask).
KINDS = ("point", "point", "point", "box", "box", "box", "points", "mask")


def mask_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Binary cross-entropy + dice per mask. logits BxKxTxhxw, target BxKx1xhxw in [0, 1], weight Bx1x1xhxw -> BxKxT.

    Kirillov et al. 2023 use focal and dice 20:1; plain cross-entropy needs no tuning."""
    target = target.expand_as(logits)
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    bce = (bce * weight).sum((-2, -1)) / weight.sum((-2, -1)).clamp(min=1)
    probability = logits.sigmoid() * weight
    overlap = (probability * target).sum((-2, -1))
    total = probability.sum((-2, -1)) + (target * weight).sum((-2, -1))
    return 2 * bce + 1 - (2 * overlap + 1) / (total + 1)


def true_iou(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """IoU of the binarised masks with the binarised target, BxKxT."""
    guess, truth = logits > 0, (target > 0.5).expand_as(logits)
    live = weight > 0
    return (guess & truth & live).sum((-2, -1)) / ((guess | truth) & live).sum((-2, -1)).clamp(min=1)


def rough_mask(target: Tensor, gen: torch.Generator) -> Tensor:
    """A wrong-ish mask of the object as +-10 logits: blurred, shifted threshold. Bx1xhxw -> Bx1xhxw."""
    side = target.shape[-1]
    scale = int(torch.randint(4, 13, (1,), generator=gen))
    blurred = F.interpolate(F.adaptive_avg_pool2d(target, max(2, side // scale)), size=side, mode="bilinear")
    threshold = (0.3 + 0.4 * torch.rand(target.shape[0], 1, 1, 1, generator=gen)).to(target.device)
    return torch.where(blurred > threshold, 10.0, -10.0)


def loss_of(model: Any, batch: Batch, *, gen: torch.Generator) -> tuple[Tensor, dict[str, float]]:
    """One step's loss and a few numbers for the log. Prompts of one structure are decoded together."""
    features, high = embed(model, batch.pixels)
    side, tokens = batch.pixels.shape[-1], features.shape[-1] * 4
    factor = side // tokens
    soft = F.avg_pool2d(batch.masks.float(), factor)[:, :, None]
    weight = F.avg_pool2d(batch.valid, factor)[:, :, None]
    groups = {kind: [i for i, k in enumerate(KINDS) if k == kind] for kind in dict.fromkeys(KINDS)}
    total = torch.zeros((), device=features.device)
    log: dict[str, float] = {}
    for kind, rows in groups.items():
        objects, target = batch.masks[:, rows], soft[:, rows]
        prompt: dict[str, Tensor] = {}
        if kind in ("point", "points"):
            count = 1 if kind == "point" else int(torch.randint(2, 6, (1,), generator=gen))
            prompt["points"] = random_points(objects, count=count, gen=gen)
        elif kind == "box":
            boxes = exact_boxes(objects)
            span = boxes[..., 2:] - boxes[..., :2]
            noise = torch.randn(boxes.shape, generator=gen).to(boxes.device) * 0.04 * span.repeat(1, 1, 2)
            loose = (torch.rand(boxes.shape[:2], generator=gen).to(boxes.device) < 0.3)[..., None]  # 70 % exact
            prompt["boxes"] = (boxes + noise * loose).clamp(0, side)
        else:
            prompt["masks"] = rough_mask(target[:, 0], gen)
            if torch.rand(1, generator=gen) < 0.5:
                prompt["points"] = random_points(objects, count=1, gen=gen)
        if "points" in prompt:
            prompt["labels"] = torch.ones(prompt["points"].shape[:-1], dtype=torch.int, device=features.device)
        logits, iou = decode_all(model, features, high, **prompt)
        losses = mask_loss(logits, target, weight)
        truth = true_iou(logits.detach(), target, weight)
        present = objects.flatten(2).any(-1).float()
        best = losses[..., 1:].min(-1).values  # three tokens share the work (Kirillov et al. 2023); the worst idle ones
        idle = losses[..., 1:].mean(-1)  # get a whisper, so that none dies
        masks = 0.9 * best + 0.1 * idle + losses[..., 0]
        quality = F.mse_loss(iou, truth, reduction="none").mean(-1)
        share = len(rows) / len(KINDS)
        total = total + share * ((masks + quality) * present).sum() / present.sum().clamp(min=1)
        picked = truth[..., 1:].gather(-1, iou[..., 1:].argmax(-1, keepdim=True))[..., 0]
        log[kind] = float((picked * present).sum() / present.sum().clamp(min=1))
    return total, log
