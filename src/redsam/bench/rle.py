"""COCO run-length encoding of masks, so that records carry every mask as a short string and a report needs no model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco
from torch import Tensor

Rle = dict[str, Any]  # {"size": [height, width], "counts": str}, the JSON form of pycocotools


def encode(masks: Tensor) -> list[Rle]:
    """bool PxHxW to P run-length codes."""
    if not len(masks):
        return []
    columns = np.asfortranarray(masks.to(torch.uint8).cpu().numpy().transpose(1, 2, 0))
    return [{"size": [int(n) for n in r["size"]], "counts": r["counts"].decode("ascii")} for r in coco.encode(columns)]


def decode(codes: Sequence[Rle], *, size: tuple[int, int]) -> Tensor:
    """P run-length codes to bool PxHxW; `size` gives the shape where P is 0."""
    if not codes:
        return torch.zeros(0, *size, dtype=torch.bool)
    columns = coco.decode([{"size": r["size"], "counts": r["counts"].encode("ascii")} for r in codes])
    return torch.from_numpy(np.ascontiguousarray(columns.transpose(2, 0, 1))).bool()
