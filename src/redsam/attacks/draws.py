"""Random prompts of an object, for attacks on an expectation over prompts: points, boxes and rough masks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from redsam import prompts
from redsam.attacks.region_map import dilate
from redsam.errors import InputError
from redsam.models.base import Segmenter
from redsam.prompts import Prompt

KINDS = ("point", "box", "mask")
# Boxes as the evaluations of UAD and RGA jitter them: width and height in 0.9 to 1.1 of the true box about its centre.
BOX_JITTER = 0.1
# Rough masks are ours: moved by up to a tenth of the box and grown or shrunk by up to a tenth of half their side.
MASK_SHIFT = 0.1
MASK_GROWTH = 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """One object to prompt. mask: HxW bool. pixels: flat positions in it. corners: (x0, y0, x1, y1), the far side one
    past the last pixel. given: what is asked instead when the mask is empty."""

    mask: NDArray[np.bool_]
    pixels: NDArray[np.int64]
    corners: tuple[int, int, int, int]
    given: Prompt


def subjects(masks: Tensor, given: Sequence[Prompt]) -> list[Subject]:
    """bool PxHxW and the P prompts that mean them."""
    out = []
    for mask, prompt in zip(masks.cpu().numpy(), given, strict=True):
        columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
        corners = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if len(columns) else (0, 0, 0, 0)
        x0, y0, x1, y1 = (int(v) for v in corners)
        out.append(Subject(mask=mask, pixels=np.flatnonzero(mask), corners=(x0, y0, x1, y1), given=prompt))
    return out


def minibatches(prompts: int, per_step: int | None) -> list[int]:
    """Sizes of the parts of a pool of `prompts`: `per_step` each, some one more where the pool does not divide; None is
    the whole pool."""
    parts = max(prompts // per_step, 1) if per_step is not None else 1
    size, rest = divmod(prompts, parts)
    return [size] * (parts - rest) + [size + 1] * rest


def stream(
    objects: Sequence[Subject], kinds: Sequence[str], sizes: Sequence[int], random: torch.Generator
) -> Iterator[list[tuple[Prompt, int]]]:
    """Endless parts of these sizes of one fresh pool after another: prompts, each with the index of its object.

    Kinds and objects come round in shuffled turns, apart from each other, so a pool holds each about equally often;
    yet every single place of it is uniform over kinds and over objects, so any part of a pool is an unbiased sample of
    the same expectation.
    """
    while True:
        turns = zip(_rounds(len(kinds), sum(sizes), random), _rounds(len(objects), sum(sizes), random), strict=True)
        for size in sizes:
            yield [(draw(objects[index], kinds[kind], random), index) for kind, index in islice(turns, size)]


def draw(subject: Subject, kind: str, random: torch.Generator) -> Prompt:
    """One random prompt of the object: a pixel inside, a jittered box or a rough mask."""
    if not len(subject.pixels):
        return subject.given
    height, width = subject.mask.shape
    x0, y0, x1, y1 = subject.corners
    if kind == "point":
        at = int(subject.pixels[int(torch.randint(len(subject.pixels), (1,), generator=random))])
        return prompts.point(at % width, at // width)
    u, v, w = (2 * torch.rand(3, generator=random, dtype=torch.float64) - 1).tolist()
    if kind == "box":
        half_w, half_h = (x1 - x0) / 2 * (1 + BOX_JITTER * u), (y1 - y0) / 2 * (1 + BOX_JITTER * v)
        cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
        return prompts.box(
            max(cx - half_w, 0.0), max(cy - half_h, 0.0), min(cx + half_w, width), min(cy + half_h, height)
        )
    if kind == "mask":
        dx, dy = round(MASK_SHIFT * u * (x1 - x0)), round(MASK_SHIFT * v * (y1 - y0))
        return prompts.mask(_rough(subject.mask, dx, dy, round(MASK_GROWTH * w * math.sqrt(len(subject.pixels)))))
    raise InputError(f"There is no prompt kind '{kind}' to draw.", hint=f"Choose from {', '.join(KINDS)}.")


def kinds_of(segmenter: Segmenter, wanted: Sequence[str]) -> tuple[str, ...]:
    """Those of the wanted kinds that the model takes. Raises InputError when that leaves none."""
    if "mask" not in wanted:
        return tuple(wanted)
    try:
        segmenter.mask_size  # noqa: B018 (asking is the test)
    except InputError as error:
        left = tuple(kind for kind in wanted if kind != "mask")
        if not left:
            raise InputError(error.message, hint="Ask for points or boxes: kinds=point,box") from None
        return left
    return tuple(wanted)


def _rounds(count: int, size: int, random: torch.Generator) -> list[int]:
    """`size` numbers below `count`: one random permutation after another."""
    turns = [torch.randperm(count, generator=random) for _ in range(-(-size // count))]
    return [int(i) for i in torch.cat(turns)[:size]]


def _rough(mask: NDArray[np.bool_], dx: int, dy: int, grow: int) -> NDArray[Any]:
    """The mask moved by (dx, dy) pixels, then grown (shrunk when negative); the mask itself when nothing is left."""
    height, width = mask.shape
    moved = np.zeros_like(mask)
    to_y, to_x = slice(max(dy, 0), height + min(dy, 0)), slice(max(dx, 0), width + min(dx, 0))
    moved[to_y, to_x] = mask[max(-dy, 0) : height - max(dy, 0), max(-dx, 0) : width - max(dx, 0)]
    tensor = torch.from_numpy(moved)
    out: NDArray[Any] = (dilate(tensor, grow) if grow >= 0 else ~dilate(~tensor, -grow)).numpy()
    return out if out.any() else mask
