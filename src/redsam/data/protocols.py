"""Prompt protocols: how a published evaluation prompts an annotated image. Each states its source and its deviations.

A protocol is a frozen dataclass; calling it on a scene gives a Sample. Every draw is seeded by (seed, scene id,
object), so prompts do not depend on the order of scenes nor on how many objects are taken. Points are whole pixels
(column, row); boxes are (first column, first row, last column + 1, last row + 1). A scene with nothing to prompt gives
a Sample without prompts whose `meta["skip"]` says why: a skipped record, not a crash.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from redsam import prompts
from redsam.errors import InputError
from redsam.prompts import Box, Prompt
from redsam.registry import register
from redsam.seeds import generator
from redsam.types import Sample, Scene

Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Protocol(ABC):
    """How objects are chosen, and (in `prompt`) how each is prompted.

    min_area: objects under this share of the image are left out; those without a pixel always are. max_objects: at most
    so many, drawn at random by (seed, scene id), the same ones for every protocol, so that the mean stays unbiased and
    point and box speak of the same objects.
    """

    max_objects: int | None = None
    min_area: float = 0.01

    def __post_init__(self) -> None:
        if self.max_objects is not None and self.max_objects < 1:
            raise InputError(f"max_objects={self.max_objects} leaves nothing to prompt.", hint="Give 1 or more.")
        if not 0 <= self.min_area < 1:
            raise InputError(f"min_area={self.min_area:g} is not a share of the image.", hint="Give 0.01 for 1 %.")

    @final
    def __call__(self, scene: Scene, *, seed: int) -> Sample:
        """Prompt a scene. The sample's masks are the objects prompted; its `objects` index them in the scene."""
        scene = self.view(scene)
        stack: NDArray[np.bool_] = scene.masks.cpu().numpy()
        owners: list[int] = []
        made: list[Prompt] = []
        for index in self.objects(stack, scene.id, seed):
            new = self.ask(scene, index, stack[index], generator(seed, scene.id, index))
            made += new
            owners += [index] * len(new)
        meta = dict(scene.meta)
        if not made:
            meta.setdefault("skip", self._nothing(len(stack)))
        return Sample(
            id=scene.id,
            image=scene.image,
            prompts=tuple(made),
            masks=scene.masks[owners] if len(stack) else None,
            objects=tuple(owners),
            meta=meta,
        )

    def view(self, scene: Scene) -> Scene:
        """The scene with the objects that this protocol speaks of; annotated ones unless it says else."""
        return scene

    def ask(self, scene: Scene, index: int, mask: Mask, random: torch.Generator) -> list[Prompt]:
        """Prompts for object `index` of the scene as viewed."""
        return self.prompt(mask, random)

    def objects(self, stack: NDArray[np.bool_], scene_id: str, seed: int) -> list[int]:
        """Indices of the objects to prompt, ascending."""
        able = [i for i, _ in self._able(stack)]
        if self.max_objects is None or len(able) <= self.max_objects:
            return able
        order = torch.randperm(len(able), generator=generator(seed, scene_id, "objects"))
        return sorted(able[i] for i in order[: self.max_objects].tolist())

    def _able(self, stack: NDArray[np.bool_]) -> list[tuple[int, int]]:
        """(index, area) of the objects large enough."""
        floor = max(1.0, self.min_area * stack[0].size) if len(stack) else 1.0
        areas = [(i, int(np.count_nonzero(m))) for i, m in enumerate(stack)]
        return [(i, area) for i, area in areas if area >= floor]

    def _nothing(self, count: int) -> str:
        if count == 0:
            return "the image has no annotated object"
        return f"none of the {count} objects covers at least {self.min_area:.2%} of the image"

    @abstractmethod
    def prompt(self, mask: Mask, random: torch.Generator) -> list[Prompt]:
        """Prompts for one object, HxW with at least one pixel."""


def from_masks(scene: Scene, masks: Tensor | Sequence[Tensor], *, origin: str = "automatic") -> Scene:
    """The scene with other masks, bool KxHxW: for `red-teaming`, the automatic masks of the segmenter on it.

    meta["masks"] names their origin, because what is then measured is stability of a model against itself.
    """
    stack = masks if isinstance(masks, Tensor) else torch.stack(list(masks)) if len(masks) else scene.masks[:0]
    meta = {k: v for k, v in scene.meta.items() if k not in ("labels", "classes")}
    return replace(scene, masks=stack.to("cpu", torch.bool), meta=meta | {"masks": origin})


def draw_points(mask: Mask, count: int, random: torch.Generator) -> list[tuple[int, int]]:
    """`count` pixels (column, row) of a mask, uniform, without repetition while there are enough."""
    flat = np.flatnonzero(mask)
    if len(flat) == 0:
        raise InputError("An empty mask has no point inside.")
    first = [int(torch.randint(len(flat), (1,), generator=random))]  # so that more points begin with the single one
    while len(first) < min(count, len(flat)):
        pick = int(torch.randint(len(flat), (1,), generator=random))
        if pick not in first:
            first.append(pick)
    while len(first) < count:
        first.append(int(torch.randint(len(flat), (1,), generator=random)))
    return [(int(flat[i]) % mask.shape[1], int(flat[i]) // mask.shape[1]) for i in first]


def exact_box(mask: Mask) -> Box:
    """(x0, y0, x1, y1) around a mask, the far side one past the last pixel."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if len(columns) == 0:
        raise InputError("An empty mask has no box.")
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def jittered_box(mask: Mask, low: float, high: float, random: torch.Generator) -> Box:
    """The exact box about its own centre with width and height each scaled by U(low, high), clipped to the image."""
    x0, y0, x1, y1 = exact_box(mask)
    scale = low + (high - low) * torch.rand(2, generator=random, dtype=torch.float64)
    half_w, half_h = (x1 - x0) / 2 * float(scale[0]), (y1 - y0) / 2 * float(scale[1])
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    height, width = mask.shape
    return max(0.0, cx - half_w), max(0.0, cy - half_h), min(float(width), cx + half_w), min(float(height), cy + half_h)


@register("protocol", "point")
@dataclass(frozen=True, kw_only=True)
class Point(Protocol):
    """One random pixel inside each object."""

    def prompt(self, mask: Mask, random: torch.Generator) -> list[Prompt]:
        return [prompts.point(*draw_points(mask, 1, random)[0])]


@register("protocol", "points")
@dataclass(frozen=True, kw_only=True)
class Points(Protocol):
    """k random pixels inside each object, given together as one prompt; the first is that of `point`."""

    k: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 1:
            raise InputError(f"k={self.k} points are no prompt.", hint="Give k of 1 or more.")

    def prompt(self, mask: Mask, random: torch.Generator) -> list[Prompt]:
        return [prompts.points(draw_points(mask, self.k, random))]


@register("protocol", "box")
@dataclass(frozen=True, kw_only=True)
class ExactBox(Protocol):
    """The exact box of each object."""

    def prompt(self, mask: Mask, random: torch.Generator) -> list[Prompt]:
        return [prompts.box(*exact_box(mask))]


@register("protocol", "point+box")
@dataclass(frozen=True, kw_only=True)
class PointAndBox(Protocol):
    """The pixel of `point` and the box of `box` together as one prompt."""

    def prompt(self, mask: Mask, random: torch.Generator) -> list[Prompt]:
        xy = draw_points(mask, 1, random)[0]
        return [Prompt(points=((float(xy[0]), float(xy[1])),), labels=(1,), box=exact_box(mask))]


@register("protocol", "mask")
@dataclass(frozen=True, kw_only=True)
class GivenMask(Protocol):
    """The object's own mask as the prompt: the easiest question there is."""

    def prompt(self, mask: Mask, random: torch.Generator) -> list[Prompt]:
        return [prompts.mask(mask)]


@register("protocol", "uad", paper="Lu et al., Unsegment Anything by Simulating Deformation, CVPR 2024", year=2024)
@dataclass(frozen=True, kw_only=True)
class Uad(Protocol):
    """5 single points and 3 jittered boxes on each of the first 10 masks of an image (UAD and RGA).

    Source: evaluation scripts of UAD (arXiv 2404.02585) and RGA (arXiv 2411.02974): the first 10 annotations of each
    SA-1B image; per mask 5 random in-mask points, and 3 boxes whose width and height are each drawn in 0.9-1.1 of the
    true box about its centre, clipped to the image; one prompt at a time, multimask_output=False (select="single"); all
    prompts pooled. As published there is no area limit (min_area=0) and no filter on clean correctness.
    Deviation: masks without a pixel are passed over; points of one object do not repeat while it has enough pixels.
    """

    max_objects: int | None = 10
    min_area: float = 0.0
    points: int = 5
    boxes: int = 3
    jitter: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.points < 0 or self.boxes < 0 or self.points + self.boxes == 0 or not 0 <= self.jitter < 1:
            raise InputError("uad needs points or boxes, and a jitter in [0, 1).", hint="Published: 5, 3 and 0.1.")

    def objects(self, stack: NDArray[np.bool_], scene_id: str, seed: int) -> list[int]:
        return [i for i, _ in self._able(stack)][: self.max_objects]

    def prompt(self, mask: Mask, random: torch.Generator) -> list[Prompt]:
        single = [prompts.point(*xy) for xy in (draw_points(mask, self.points, random) if self.points else [])]
        low, high = 1 - self.jitter, 1 + self.jitter
        return single + [prompts.box(*jittered_box(mask, low, high, random)) for _ in range(self.boxes)]


@register("protocol", "red-teaming", paper="Jankowski et al., Red-Teaming SAM, CVPRW 2024", year=2024)
@dataclass(frozen=True, kw_only=True)
class RedTeaming(Protocol):
    """The centre of each of the K = 9 largest masks as a single point (Red-Teaming SAM).

    Source: official notebook of arXiv 2404.02067: masks come from the automatic generator on the reference image
    (`from_masks(scene, masks)`; annotated masks work too and are then what the scene holds), sorted by area; the point
    is (int mean x, int mean y). Of three output masks the largest is kept (select="area"). No area limit.
    Deviation: where the mean lies outside the mask we take the nearest pixel of the mask. The notebook tests
    `mask[x][y]`, axes swapped, and then takes the nearest x and the nearest y each by itself, so its point may lie
    outside; `as_published=True` does that (a swapped look-up beyond the image counts as outside).
    """

    max_objects: int | None = 9
    min_area: float = 0.0
    as_published: bool = False

    def objects(self, stack: NDArray[np.bool_], scene_id: str, seed: int) -> list[int]:
        largest = sorted(self._able(stack), key=lambda pair: (-pair[1], pair[0]))
        return [i for i, _ in largest[: self.max_objects]]

    def prompt(self, mask: Mask, random: torch.Generator) -> list[Prompt]:
        rows, columns = np.nonzero(mask)
        x, y = int(columns.mean()), int(rows.mean())
        if self.as_published:
            if not (x < mask.shape[0] and y < mask.shape[1] and mask[x, y]):
                x = int(columns[np.abs(columns - x).argmin()])
                y = int(rows[np.abs(rows - y).argmin()])
        elif not mask[y, x]:
            near = int(((columns - x) ** 2 + (rows - y) ** 2).argmin())
            x, y = int(columns[near]), int(rows[near])
        return [prompts.point(x, y)]
