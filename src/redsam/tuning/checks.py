"""Checks: IoU on photographs that are not trained on, clean and attacked, always the same ones and the same seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from redsam.metrics import iou
from redsam.models.base import Segmenter
from redsam.seeds import stable_seed
from redsam.tuning.course import Course
from redsam.tuning.lessons import same_size
from redsam.types import Sample, from_uint8

Held = Sequence[tuple[str, Sample]]


@dataclass(frozen=True, kw_only=True)
class Score:
    """Mean IoU with the annotation over all prompts (and attacks). robust is None where nobody looked."""

    clean: float
    robust: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        """JSON-ready."""
        return {"clean": self.clean, "robust": self.robust}


def clean_iou(segmenter: Segmenter, held: Held, course: Course) -> float:
    """On the photographs as they are."""
    return _mean(segmenter, [chunk for group in same_size(held) for chunk in _chunks(group, course.batch)])


def robust_iou(segmenter: Segmenter, held: Held, course: Course) -> float:
    """On each photograph attacked through these very weights, each protocol's prompts apart; mean over the attacks."""
    found = []
    for attack in course.check_recipes:
        chunks = []
        for group in same_size(held):
            for chunk in _chunks(group, course.batch):
                result = attack.run(
                    segmenter,
                    torch.stack([s.image for _, s in chunk]),
                    [s.prompts for _, s in chunk],
                    threat=course.threat,
                    reference=[s.masks for _, s in chunk if s.masks is not None],
                    seeds=[stable_seed(course.seed, "check", name, s.id) for name, s in chunk],
                )
                images = from_uint8(result.images)
                chunks.append([(n, s.with_image(x)) for (n, s), x in zip(chunk, images, strict=True)])
        found.append(_mean(segmenter, chunks))
    return sum(found) / len(found)


def _mean(segmenter: Segmenter, chunks: Sequence[Held]) -> float:
    values: list[float] = []
    for chunk in chunks:
        images = torch.stack([s.image for _, s in chunk])
        for (_, sample), answer in zip(chunk, segmenter.predict(images, [s.prompts for _, s in chunk]), strict=True):
            assert sample.masks is not None  # `held_out` leaves the others out
            values += iou(answer.masks.cpu(), sample.masks).tolist()
    return sum(values) / len(values)


def _chunks(group: list[tuple[str, Sample]], size: int) -> list[list[tuple[str, Sample]]]:
    return [group[i : i + size] for i in range(0, len(group), size)]
