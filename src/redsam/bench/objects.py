"""Where prompts come from: annotated objects, or the model's own automatic masks on photographs that have none.

Automatic objects only say where to prompt; they are no ground truth, and what is then measured is the stability of a
model's answers against its own clean prediction.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from redsam.bench import rle
from redsam.bench.plan import protocol_of
from redsam.bench.spec import Cell
from redsam.data import Dataset, from_masks
from redsam.models import automatic_masks
from redsam.models.base import Segmenter
from redsam.types import Sample, Scene

Objects = Literal["annotated", "automatic"]

# The published 32 x 32 grid keeps masks of predicted IoU 0.88 and stability 0.95 to annotate; to find places to prompt
# a quarter of the points is enough, and small models, whose scores are lower, should find some, too.
GRID, LEAST_IOU, LEAST_STABILITY = 16, 0.7, 0.8
LOOK = 5  # images looked at to tell whether a data set is annotated


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
    _found: dict[str, list[rle.Rle]] = field(default_factory=dict)

    def sample(self, cell: Cell, index: int) -> Sample:
        """The prompts of one image. Whatever the data set raises comes through."""
        scene, protocol = self.dataset[index], protocol_of(cell)
        if cell.objects == "annotated":
            return protocol(scene, seed=cell.seed)
        return replace(protocol(self._automatic(scene), seed=cell.seed), masks=None)

    def _automatic(self, scene: Scene) -> Scene:
        if scene.id not in self._found:
            made = automatic_masks(
                self.segmenter,
                scene.image,
                points_per_side=GRID,
                pred_iou_thresh=LEAST_IOU,
                stability_score_thresh=LEAST_STABILITY,
            )
            self._found[scene.id] = rle.encode(made.masks)
        return from_masks(scene, rle.decode(self._found[scene.id], size=scene.size))


def prompt_kinds(cell: Cell, dataset: Dataset) -> set[str]:
    """Kinds of the prompts a cell will ask, seen on the first image that can be read and has something to prompt."""
    protocol = protocol_of(cell)
    for index in range(len(dataset)):
        try:
            scene = dataset[index]
            if cell.objects == "automatic":  # any object will do to see the kind
                scene = from_masks(scene, torch.ones(1, *scene.size, dtype=torch.bool))
            found = {p.kind for p in protocol(scene, seed=cell.seed).prompts}
        except Exception:  # a broken file becomes a failed record later
            continue
        if found:
            return found
    return set()
