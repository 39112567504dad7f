"""Where prompts come from: annotated objects, or the model's own automatic masks on photographs that have none.

Automatic objects only say where to prompt; they are no ground truth, and what is then measured is the stability of a
model's answers against its own clean prediction. A cell names them "automatic", or "automatic GRID IOU STABILITY" with
settings of the generator other than the usual ones here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch

from redsam.bench import rle
from redsam.bench.plan import protocol_of
from redsam.bench.spec import Cell
from redsam.data import Dataset, from_masks
from redsam.errors import InputError
from redsam.models import automatic_masks
from redsam.models.base import Segmenter
from redsam.types import Sample, Scene

Objects = str  # "annotated", "automatic", or `automatic(...)`
ANNOTATED, AUTOMATIC = "annotated", "automatic"

# The published 32 x 32 grid keeps masks of predicted IoU 0.88 and stability 0.95 to annotate; to find places to prompt
# a quarter of the points is enough, and small models, whose scores are lower, should find some, too.
GRID, LEAST_IOU, LEAST_STABILITY = 16, 0.7, 0.8
LOOK = 5  # images looked at to tell whether a data set is annotated


class Generator(NamedTuple):
    """Points on a side of the grid, least predicted IoU and least stability of a mask."""

    grid: int = GRID
    iou: float = LEAST_IOU
    stability: float = LEAST_STABILITY


def automatic(*, grid: int, iou: float, stability: float) -> Objects:
    """The model's own masks with these settings, as a cell names them."""
    return f"{AUTOMATIC} {grid} {iou:g} {stability:g}"


def generator_of(objects: Objects) -> Generator | None:
    """Settings of the automatic masks that a cell asks for, None for annotated ones. Raises InputError."""
    kind, *numbers = objects.split() or [""]
    try:
        if kind == ANNOTATED and not numbers:
            return None
        if kind == AUTOMATIC and len(numbers) in (0, 3):
            return Generator(int(numbers[0]), *map(float, numbers[1:])) if numbers else Generator()
    except ValueError:
        pass
    raise InputError(
        f"There are no '{objects}' objects to prompt.",
        hint=f"Say {ANNOTATED}, {AUTOMATIC} or {AUTOMATIC} 32 0.88 0.95.",
    )


def find_objects(dataset: Dataset) -> Objects:
    """`annotated` if one of the first readable images has a mask or none can be read, else `automatic`."""
    read = 0
    for index in range(len(dataset)):
        try:
            scene = dataset[index]
        except Exception:  # a broken file becomes a failed record later
            continue
        if len(scene.masks):
            return "annotated"
        read += 1
        if read == LOOK:
            break
    return "automatic" if read else "annotated"


@dataclass(kw_only=True, eq=False)
class Sampler:
    """Scenes to samples of a cell; automatic masks are made once for each image and kept as run-length codes."""

    segmenter: Segmenter
    dataset: Dataset
    _found: dict[tuple[Generator, str], list[rle.Rle]] = field(default_factory=dict)

    def sample(self, cell: Cell, index: int) -> Sample:
        """The prompts of one image. Whatever the data set raises comes through."""
        scene, protocol = self.dataset[index], protocol_of(cell)
        settings = generator_of(cell.objects)
        if settings is None:
            return protocol(scene, seed=cell.seed)
        return replace(protocol(self._automatic(scene, settings), seed=cell.seed), masks=None)

    def _automatic(self, scene: Scene, settings: Generator) -> Scene:
        key = settings, scene.id
        if key not in self._found:
            made = automatic_masks(
                self.segmenter,
                scene.image,
                points_per_side=settings.grid,
                pred_iou_thresh=settings.iou,
                stability_score_thresh=settings.stability,
            )
            self._found[key] = rle.encode(made.masks)
        return from_masks(scene, rle.decode(self._found[key], size=scene.size))


def prompt_kinds(cell: Cell, dataset: Dataset) -> set[str]:
    """Kinds of the prompts a cell will ask, seen on the first image that can be read and has something to prompt."""
    protocol, settings = protocol_of(cell), generator_of(cell.objects)
    for index in range(len(dataset)):
        try:
            scene = dataset[index]
            if settings is not None:  # any object will do to see the kind
                scene = from_masks(scene, torch.ones(1, *scene.size, dtype=torch.bool))
            found = {p.kind for p in protocol(scene, seed=cell.seed).prompts}
        except Exception:  # a broken file becomes a failed record later
            continue
        if found:
            return found
    return set()
