"""Prompts that an attack draws itself, and the masks' logits under them in the decoder's own low-resolution frame.

There, not in original pixels, because hundreds of prompts at full size would fill the memory; padding is cut off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from redsam.attacks.task import Task
from redsam.errors import InputError
from redsam.models.values import Encoding, Select
from redsam.prompts import Prompt, box, point

Kind = Literal["point", "box"]


def size_of(task: Task) -> tuple[int, int]:
    """(height, width) of the original images, in whose pixels prompts are."""
    if task.frame is not None:
        return task.frame.height, task.frame.width
    return int(task.clean.shape[-2]), int(task.clean.shape[-1])


def random_prompts(size: tuple[int, int], count: int, kind: Kind, generator: torch.Generator) -> list[Prompt]:
    """`count` points, or boxes between two opposite corners, uniform over an image of (height, width)."""
    height, width = size
    at = torch.rand(count, 2, 2, generator=generator, dtype=torch.float64) * torch.tensor([width, height])
    corners = at.clamp_max(torch.tensor([width, height]) - 1e-3).tolist()
    if kind == "point":
        return [point(x, y) for (x, y), _ in corners]
    if kind != "box":
        raise InputError(f"There is no kind of random prompt '{kind}'.", hint="Choose point or box.")
    made = []
    for (x0, y0), (x1, y1) in corners:
        left, top = min(x0, x1), min(y0, y1)
        # At least a pixel wide and high, inside the image.
        left, top = min(left, width - 1.0), min(top, height - 1.0)
        made.append(box(left, top, max(x0, x1, left + 1), max(y0, y1, top + 1)))
    return made


def scan(size: tuple[int, int], count: int, generator: torch.Generator) -> list[Prompt]:
    """One random point in each of `count` regions: the image is split into columns x rows cells, as near to square as
    the count allows; 256 is 16 x 16."""
    height, width = size
    down = max(d for d in range(1, math.isqrt(count) + 1) if count % d == 0)
    across = count // down
    if height > width:
        down, across = across, down
    at = torch.rand(count, 2, generator=generator, dtype=torch.float64).clamp_max(1 - 1e-6).tolist()
    return [
        point((i % across + x) * width / across, (i // across + y) * height / down) for i, (x, y) in enumerate(at)
    ]  # fmt: skip


def answers(task: Task, encoding: Encoding, prompts: Sequence[Sequence[Prompt]], select: Select) -> Tensor:
    """nxPxhxw logits of the chosen masks of P prompts on each of n images, with gradients."""
    prediction = task.segmenter.decode(encoding, prompts, multimask=select != "single")
    low_res = prediction.low_res
    if select == "best":
        raise InputError(
            "select='best' needs a reference, which prompts that the attack draws itself have not.",
            hint="Give iou, area or single.",
        )
    score = prediction.iou if select != "area" else (low_res > 0).sum((2, 3))
    chosen = low_res[torch.arange(len(low_res), device=low_res.device), score.detach().argmax(1)]
    frame = encoding.frames[0]
    height, width = (
        max(math.ceil(have * part / frame.side), 1)
        for have, part in zip(low_res.shape[-2:], frame.content, strict=True)
    )
    return chosen[:, :height, :width].reshape(len(prompts), -1, height, width)
