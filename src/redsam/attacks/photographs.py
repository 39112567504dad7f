"""Natural images beside the attacked ones: what targeted feature attacks aim at, and what competes with it.

A target is the user's image file or one of the bundled photographs, chosen by each image's seed and never the attacked
picture itself; it is resized to the attacked size.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from redsam.attacks.task import Task
from redsam.data.demo import demo_root
from redsam.data.images import read_image
from redsam.errors import InputError
from redsam.models.resample import resize

# Two pictures that differ by less than this on average are one: a bundled photograph that was resized or re-encoded.
SAME = 2 / 255


@lru_cache(maxsize=1)
def album() -> tuple[Tensor, ...]:
    """The bundled photographs, float 3xHxW in [0, 1], in the order of their names."""
    return tuple(read_image(path) for path in sorted(Path(demo_root()).glob("*.jpg")))


def choices(task: Task, target: str | None) -> list[list[Tensor]]:
    """For each image of the task the other pictures it may use, 3xHxW of the attacked size on the task's device.

    The first is its target: `target` when given, else drawn by the image's seed like all that follow (the rest of the
    bundled photographs, never the attacked picture). Raises InputError for a file that cannot be read and for a target
    that is the attacked picture.
    """
    size = (int(task.clean.shape[-2]), int(task.clean.shape[-1]))
    fitted = [_fit(photo, size, task.clean) for photo in album()]
    given = None if target is None else _fit(read_image(target), size, task.clean)
    out = []
    for image, generator in zip(task.clean, task.generators("photographs"), strict=True):
        if given is not None and _same(given, image):
            raise InputError(f"{target}: this is the attacked image itself.", hint="Give another image as target.")
        order = torch.randperm(len(fitted), generator=generator).tolist()
        others = [fitted[i] for i in order if not _same(fitted[i], image)]
        if given is not None:
            others = [given, *(other for other in others if not _same(other, given))]
        out.append(others)
    return out


def crops(image: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless random patches of 3xHxW, half its height and width, each enlarged to the whole size."""
    height, width = int(image.shape[-2]), int(image.shape[-1])
    h, w = max(height // 2, 1), max(width // 2, 1)
    while True:
        top = int(torch.randint(height - h + 1, (1,), generator=generator))
        left = int(torch.randint(width - w + 1, (1,), generator=generator))
        yield resize(image[None, :, top : top + h, left : left + w], (height, width))[0].clamp(0, 1)


def _fit(photo: Tensor, size: tuple[int, int], like: Tensor) -> Tensor:
    return resize(photo[None].to(like), size)[0].clamp(0, 1)


def _same(one: Tensor, other: Tensor) -> bool:
    return float((one - other).abs().mean()) < SAME
