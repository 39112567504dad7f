"""Lessons: what one step is trained on. Crops of the photographs at the model's own resolution, prompted by protocols.

A step's images have one size, so that they are attacked together; its shape, crops, flips, prompts and seeds are drawn
from (seed, step) alone, so a training that was killed draws the same ones again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from redsam.data import Dataset
from redsam.errors import InputError
from redsam.models.base import Segmenter
from redsam.models.resample import resize
from redsam.seeds import generator, stable_seed
from redsam.tuning.course import Course
from redsam.types import Sample, Scene, from_uint8, to_uint8

# Height : width; the long side is the model's own.
SHAPES = ((1.0, 1.0), (0.75, 1.0), (1.0, 0.75), (0.67, 1.0), (1.0, 0.67))
LEAST = 0.6  # of the largest crop of the shape, per side
PROBE = 8  # photographs looked at before hours are spent


@dataclass(kw_only=True, eq=False)
class Lessons:
    """cursor: photographs passed so far. skipped: id and reason of those that could not be used."""

    data: Dataset
    course: Course
    side: int
    cursor: int = 0
    skipped: dict[str, str] = field(default_factory=dict)

    def draw(self, step: int) -> list[Sample]:
        """The samples of a step. Raises InputError when no photograph of the whole data can be used."""
        random = generator(self.course.seed, "lesson", step)
        tall, wide = SHAPES[int(torch.randint(len(SHAPES), (1,), generator=random))]
        shape = round(self.side * tall), round(self.side * wide)
        out: list[Sample] = []
        failed = 0
        while len(out) < self.course.batch:
            index = self._next()
            try:
                sample = self._sample(self.data[index], shape, random, step)
                reason = str(sample.meta.get("skip", "")) if not sample.prompts else ""
            except InputError as error:
                sample, reason = None, str(error)
            if sample is not None and not reason:
                out.append(sample)
                failed = 0
                continue
            self.skipped[self.data.ids[index]] = reason
            failed += 1
            if failed > len(self.data):
                raise InputError(f"None of the {len(self.data)} photographs can be trained on: {reason}")
        return out

    def _next(self) -> int:
        epoch, where = divmod(self.cursor, len(self.data))
        self.cursor += 1
        order = torch.randperm(len(self.data), generator=generator(self.course.seed, "order", epoch))
        return int(order[where])

    def _sample(self, scene: Scene, shape: tuple[int, int], random: torch.Generator, step: int) -> Sample:
        names = list(self.course.protocols)
        weights = torch.tensor([self.course.prompts[n] for n in names])
        draws = torch.rand(4, generator=random).tolist()
        name = names[int(torch.multinomial(weights, 1, generator=random))]
        protocol, seed = self.course.protocols[name], stable_seed(self.course.seed, "prompts", step)
        sample = protocol(crop(scene, shape, draws), seed=seed)
        return sample if sample.prompts else protocol(crop(scene, shape, [1.0, 0.5, 0.5, draws[3]]), seed=seed)


def crop(scene: Scene, shape: tuple[int, int], draws: Sequence[float]) -> Scene:
    """A part of a scene, resized to `shape`. draws: four uniform numbers for its size, place (y, x) and a mirror."""
    height, width = scene.size
    scale = min(height / shape[0], width / shape[1]) * (LEAST + (1 - LEAST) * draws[0])
    tall, wide = max(2, min(height, round(shape[0] * scale))), max(2, min(width, round(shape[1] * scale)))
    top, left = round(draws[1] * (height - tall)), round(draws[2] * (width - wide))
    image, masks = (t[:, top : top + tall, left : left + wide] for t in (scene.image, scene.masks))
    if draws[3] < 0.5:
        image, masks = image.flip(-1), masks.flip(-1)
    return replace(scene, image=shrunk(image, shape), masks=nearest(masks, shape))


def whole(scene: Scene, side: int) -> Scene:
    """A scene with its long side as long as the model's own; for checks."""
    scale = side / max(scene.size)
    shape = max(2, round(scene.size[0] * scale)), max(2, round(scene.size[1] * scale))
    return replace(scene, image=shrunk(scene.image, shape), masks=nearest(scene.masks, shape))


def shrunk(image: Tensor, shape: tuple[int, int]) -> Tensor:
    """3xHxW to 3xhxw on the 8-bit lattice, contiguous."""
    return from_uint8(to_uint8(resize(image[None], shape)[0])).contiguous()


def nearest(masks: Tensor, shape: tuple[int, int]) -> Tensor:
    """bool KxHxW to Kxhxw."""
    if not len(masks):
        return masks.new_zeros((0, *shape))
    return F.interpolate(masks[:, None].to(torch.uint8), size=shape, mode="nearest-exact")[:, 0].bool()


def divided(data: Dataset, count: int) -> tuple[Dataset, Dataset]:
    """(to train on, held out): `count` evenly spaced photographs are held out. Raises InputError for too few."""
    if len(data) < 2 * count:
        raise InputError(
            f"{data.name}: {len(data)} photographs are too few to hold {count} of them out.",
            hint=f"Give more, or type: --held-out {max(1, len(data) // 4)}",
        )
    held = set(data.limit(count).ids)
    return data.subset([i for i in data.ids if i not in held]), data.subset([i for i in data.ids if i in held])


def held_out(data: Dataset, course: Course, segmenter: Segmenter) -> list[tuple[str, Sample]]:
    """(protocol, sample) of every check: each held-out photograph asked by each protocol of the mix. Raises InputError
    for a photograph or mask that cannot be read, before anything is trained, and where nothing is annotated."""
    found: list[tuple[str, Sample]] = []
    for index in range(len(data)):
        scene = whole(data[index], segmenter.frame(2, 2).side)
        for name, protocol in course.protocols.items():
            sample = protocol(scene, seed=course.seed)
            if sample.prompts:
                found.append((name, sample))
    if not found:
        raise InputError(
            f"{data.name}: none of {len(data)} photographs looked at has an object to prompt.",
            hint="Hardening needs masks: NAME.jpg with NAME.png beside it.",
        )
    return found


def probe(data: Dataset) -> None:
    """Read a few photographs, so that masks that do not match are found now. Raises InputError."""
    for index in range(len(data.limit(PROBE))):
        _ = data.limit(PROBE)[index]


def same_size(samples: Sequence[tuple[str, Sample]]) -> list[list[tuple[str, Sample]]]:
    """Groups that can be attacked together."""
    groups: dict[tuple[int, int], list[tuple[str, Sample]]] = {}
    for pair in samples:
        groups.setdefault(pair[1].size, []).append(pair)
    return list(groups.values())
