"""Weathered: images changed by a corruption, written as PNG, read back, measured; nobody attacks, so no budget holds.

Which image a corruption makes depends on the photograph, its name and the cell's seed alone: not on the model, the
prompts or the severity, whose draws are shared. So the cells of a run that ask the same share the files,
OUT/changed/<what>/<sample>.png, and the first of them makes each. Always on the CPU: the same bytes on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from redsam import registry
from redsam.bench.evaluate import Moved
from redsam.bench.files import png_bytes, safe_name, write_bytes
from redsam.bench.plan import corruption_of
from redsam.bench.shots import Job, Shot
from redsam.bench.spec import Cell, digest
from redsam.corruptions import Corrupted, Corruption
from redsam.data import read_image
from redsam.errors import BudgetViolation
from redsam.prompts import Prompt
from redsam.seeds import stable_seed
from redsam.threat import Threat
from redsam.types import to_uint8

PROMPT_LEFT = "the prompt left the image"
OBJECT_LEFT = "its object left the image"


@dataclass(frozen=True, kw_only=True, eq=False)
class Weathered:
    """A `Supply`: jobs of one size are corrupted together."""

    cell: Cell
    root: Path
    corruption: Corruption
    geometric: bool = field(init=False)
    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        meta = registry.get("corruption", self.cell.probe["name"]).meta
        object.__setattr__(self, "geometric", bool(meta["geometric"]))
        same = digest([self.cell.spec()[key] for key in ("probe", "data", "seed")])
        object.__setattr__(self, "folder", self.root / "changed" / same)

    @classmethod
    def of(cls, cell: Cell, root: Path) -> Weathered:
        """The supply of a corruption cell; root: the folder of the run."""
        return cls(cell=cell, root=root, corruption=corruption_of(cell))

    def __call__(self, jobs: Sequence[Job]) -> list[Shot]:
        paths = [self.folder / f"{safe_name(job.sample.id)}.png" for job in jobs]
        # Where pixels move, it is made again even if the file is there, for the way they went.
        todo = [i for i, path in enumerate(paths) if self.geometric or not path.is_file()]
        made: Corrupted | None = None
        if todo:
            images = torch.stack([jobs[i].sample.image for i in todo]).cpu()
            seeds = [stable_seed(self.cell.seed, jobs[i].sample.id, "corruption") for i in todo]
            made = self.corruption.run(images, seeds=seeds)
            for k, i in enumerate(todo):
                self._put(paths[i], to_uint8(made.images[k]))
        return [self._shot(job, paths[i], made if self.geometric else None, i) for i, job in enumerate(jobs)]

    def _put(self, path: Path, image: torch.Tensor) -> None:
        if not path.is_file():
            write_bytes(path, png_bytes(image))
        if not torch.equal(to_uint8(read_image(path)), image):
            raise BudgetViolation(f"{path}: the file does not hold the image that was made.")

    def _shot(self, job: Job, path: Path, made: Corrupted | None, i: int) -> Shot:
        image = read_image(path)
        prompts, moved = (job.sample.prompts, None) if made is None or made.grid is None else moved_with(made, i, job)
        return Shot(
            job=job,
            image=image,
            path=path.relative_to(self.root).as_posix(),
            budget=Threat.measure(to_uint8(image), to_uint8(job.sample.image)),
            prompts=prompts,
            notes={},
            moved=moved,
        )


def moved_with(made: Corrupted, i: int, job: Job) -> tuple[tuple[Prompt, ...], Moved]:
    """Prompts and references of a job moved with the pixels of image i, those alone that are still in it."""
    truth, clean = job.sample.masks, job.clean.masks()
    prompts = made.prompts(i, job.sample.prompts)
    shown = made.masks(i, clean)
    placed = None if truth is None else made.masks(i, truth)
    before, after = (clean, shown) if truth is None or placed is None else (truth, placed)
    gone: dict[int, str] = {}
    for k, prompt in enumerate(prompts):
        if prompt is None:
            gone[k] = PROMPT_LEFT
        elif bool(before[k].any()) and not bool(after[k].any()):
            gone[k] = OBJECT_LEFT
    kept = tuple(k for k in range(len(prompts)) if k not in gone)
    still = tuple(p for k, p in enumerate(prompts) if p is not None and k not in gone)
    rest = list(kept)
    return still, Moved(kept=kept, gone=gone, clean=shown[rest], truth=None if placed is None else placed[rest])
