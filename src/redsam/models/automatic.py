"""Automatic masks: everything in an image, from a grid of points (Kirillov et al., "Segment Anything", 2023, app. B).

Defaults as published in `SamAutomaticMaskGenerator`. Deviations: `min_area` drops whole masks instead of filling holes
and cutting islands inside them (the published default switches both off); masks come as bool tensors, not as RLE.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from redsam.errors import InputError
from redsam.models.base import Segmenter
from redsam.models.geometry import Frame
from redsam.prompts import point

Corners = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskSet:
    """K masks of one image, by falling predicted IoU inside each crop. masks: bool KxHxW. boxes: Kx4 float, first and
    last column and row of each mask (x0, y0, x1, y1). iou, stability: K. points: Kx2, the prompt behind each mask."""

    masks: Tensor
    boxes: Tensor
    iou: Tensor
    stability: Tensor
    points: Tensor

    def __len__(self) -> int:
        return len(self.masks)


@torch.no_grad()
def automatic_masks(
    segmenter: Segmenter,
    image: Tensor,
    *,
    points_per_side: int = 32,
    points_per_batch: int = 64,
    pred_iou_thresh: float = 0.88,
    stability_score_thresh: float = 0.95,
    stability_score_offset: float = 1.0,
    box_nms_thresh: float = 0.7,
    crop_n_layers: int = 0,
    crop_nms_thresh: float = 0.7,
    crop_overlap_ratio: float = 512 / 1500,
    crop_n_points_downscale_factor: int = 1,
    min_area: int = 0,
) -> MaskSet:
    """Masks of everything in a float 3xHxW image on the 8-bit lattice, with the model's exact preprocessing.

    min_area: masks of fewer pixels are dropped. Crop layer i adds (2^i)^2 overlapping crops of the image.
    """
    if image.ndim != 3:
        raise InputError(f"automatic_masks takes one image 3xHxW, got {tuple(image.shape)}.")
    height, width = int(image.shape[1]), int(image.shape[2])
    kept: list[MaskSet] = []
    crop_areas: list[Tensor] = []
    for layer, box in crop_boxes(height, width, crop_n_layers, crop_overlap_ratio):
        side = max(int(points_per_side / crop_n_points_downscale_factor**layer), 1)
        found = _crop(
            segmenter,
            image,
            box,
            grid=point_grid(side),
            batch=points_per_batch,
            iou_thresh=pred_iou_thresh,
            stability_thresh=stability_score_thresh,
            offset=stability_score_offset,
            nms_thresh=box_nms_thresh,
            min_area=min_area,
        )
        kept.append(found)
        crop_areas.append(torch.full((len(found),), float((box[2] - box[0]) * (box[3] - box[1]))))
    every = MaskSet(**{f: torch.cat([getattr(k, f) for k in kept]) for f in MaskSet.__dataclass_fields__})
    if len(kept) == 1:
        return every
    # Across crops the smaller crop wins: it saw the object larger.
    order = nms(every.boxes, 1 / torch.cat(crop_areas).to(every.boxes.device), crop_nms_thresh)
    return _take(every, order)


def point_grid(n: int) -> Tensor:
    """n*n x 2 float64 (x, y) in (0, 1): cell centres, row by row."""
    axis = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return torch.stack([axis.repeat(n), axis.repeat_interleave(n)], dim=1)


def crop_boxes(
    height: int, width: int, layers: int, overlap_ratio: float
) -> list[tuple[int, tuple[int, int, int, int]]]:
    """(layer, (x0, y0, x1, y1)) of the whole image and of each layer's overlapping crops."""
    out = [(0, (0, 0, width, height))]
    for layer in range(1, layers + 1):
        count = 2**layer
        overlap = int(overlap_ratio * min(height, width) * (2 / count))
        crop_w = math.ceil((overlap * (count - 1) + width) / count)
        crop_h = math.ceil((overlap * (count - 1) + height) / count)
        lefts = [int((crop_w - overlap) * i) for i in range(count)]
        tops = [int((crop_h - overlap) * i) for i in range(count)]
        out += [(layer, (x, y, min(x + crop_w, width), min(y + crop_h, height))) for x in lefts for y in tops]
    return out


def stability(logits: Tensor, offset: float = 1.0) -> Tensor:
    """...xHxW logits to ... scores: IoU of the masks at thresholds +offset and -offset; 0 where the larger is empty."""
    inner = (logits > offset).sum((-1, -2), dtype=torch.int64)
    outer = (logits > -offset).sum((-1, -2), dtype=torch.int64)
    return inner / outer.clamp(min=1)


def boxes_of(masks: Tensor) -> Tensor:
    """bool KxHxW to Kx4 float (first column, first row, last column, last row); zeros for an empty mask."""
    out = []
    for axis in (1, 2):  # columns: any over rows
        seen = masks.any(axis).int()
        first, last = seen.argmax(1), seen.shape[1] - 1 - seen.flip(1).argmax(1)
        out.append(torch.stack([first, last], 1))
    boxes = torch.stack([out[0][:, 0], out[1][:, 0], out[0][:, 1], out[1][:, 1]], 1).float()
    return boxes * masks.any(2).any(1)[:, None]


def nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Greedy non-maximum suppression: indices kept, by falling score (ties by index). Boxes Kx4 with area
    (x1 - x0) (y1 - y0); a box goes when its IoU with a kept one is above the threshold."""
    order = torch.argsort(scores, descending=True, stable=True)
    ordered = boxes[order].double()
    area = (ordered[:, 2] - ordered[:, 0]).clamp(min=0) * (ordered[:, 3] - ordered[:, 1]).clamp(min=0)
    alive = torch.ones(len(order), dtype=torch.bool, device=boxes.device)
    kept = []
    for i in range(len(order)):
        if not alive[i]:
            continue
        kept.append(i)
        low = torch.maximum(ordered[i, :2], ordered[:, :2])
        high = torch.minimum(ordered[i, 2:], ordered[:, 2:])
        both = (high - low).clamp(min=0).prod(1)
        alive &= ~(both > threshold * (area[i] + area - both))
    return order[torch.tensor(kept, dtype=torch.int64, device=order.device)]


def _crop(
    segmenter: Segmenter,
    image: Tensor,
    box: Corners,
    *,
    grid: Tensor,
    batch: int,
    iou_thresh: float,
    stability_thresh: float,
    offset: float,
    nms_thresh: float,
    min_area: int,
) -> MaskSet:
    """The masks of one crop, in whole-image pixels. Candidates are held as low-resolution logits, so that thousands of
    them cost little memory; the survivors are brought to full size again."""
    height, width = int(image.shape[1]), int(image.shape[2])
    x0, y0, x1, y1 = box
    encoding = segmenter.encode(image[None, :, y0:y1, x0:x1], exact=True)
    frame: Frame = encoding.frames[0]
    points = grid * grid.new_tensor([x1 - x0, y1 - y0])
    parts: list[tuple[Tensor, ...]] = []
    for start in range(0, len(points), batch):
        chunk = points[start : start + batch]
        prediction = segmenter.decode(encoding, [[point(float(x), float(y)) for x, y in chunk]])
        flat, score = prediction.low_res.flatten(0, 1), prediction.iou.flatten()
        source = chunk.repeat_interleave(prediction.low_res.shape[1], 0).to(flat.device)
        keep = (score > iou_thresh) if iou_thresh > 0 else torch.ones_like(score, dtype=torch.bool)
        flat, score, source = flat[keep], score[keep], source[keep]
        logits = frame.logits(flat[:, None])[:, 0]
        firm = stability(logits, offset)
        masks = logits > 0
        found = boxes_of(masks)
        # Published comparisons: strict for the predicted IoU, not for stability; a threshold of 0 switches one off.
        keep = (firm >= max(stability_thresh, 0.0)) & (masks.sum((1, 2)) >= max(min_area, 1))
        keep &= ~_cut_by_crop(found, box, height, width)
        parts.append(tuple(value[keep] for value in (flat, score, firm, found, source)))
    candidates, score, firm, corners, where = (torch.cat(column) for column in zip(*parts, strict=True))
    order = nms(corners, score, nms_thresh)
    full = torch.zeros(len(order), height, width, dtype=torch.bool, device=candidates.device)
    for slot, index in enumerate(order.tolist()):
        full[slot, y0:y1, x0:x1] = frame.logits(candidates[index][None, None])[0, 0] > 0
    shift = corners.new_tensor([x0, y0])
    return MaskSet(
        masks=full,
        boxes=corners[order] + shift.repeat(2),
        iou=score[order],
        stability=firm[order],
        points=where[order] + shift,
    )


def _cut_by_crop(boxes: Tensor, crop: Corners, height: int, width: int, slack: float = 20.0) -> Tensor:
    """K bool: the mask comes within 20 pixels (as published) of a side of its crop that is no side of the image."""
    edges = boxes.new_tensor(crop)
    whole = boxes.new_tensor([0, 0, width, height])
    placed = boxes + boxes.new_tensor([crop[0], crop[1], crop[0], crop[1]])
    near = (placed - edges).abs() <= slack
    inner = (placed - whole).abs() > slack
    return (near & inner).any(1)


def _take(found: MaskSet, order: Tensor) -> MaskSet:
    return MaskSet(**{f: getattr(found, f)[order] for f in MaskSet.__dataclass_fields__})
