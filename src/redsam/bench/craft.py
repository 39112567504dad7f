"""Craft: images made by an attack on the cell's own model, written as PNG, read back, measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from redsam.attacks.base import Attack
from redsam.bench.evaluate import finite
from redsam.bench.plan import attack_of, threat_of
from redsam.bench.shots import Job, Shot
from redsam.bench.spec import Cell, JsonDict
from redsam.bench.store import CellStore
from redsam.data import read_image
from redsam.errors import BudgetViolation
from redsam.models.base import Segmenter
from redsam.prompts import Prompt, shift
from redsam.seeds import stable_seed
from redsam.threat import Threat
from redsam.types import to_uint8


@dataclass(frozen=True, kw_only=True, eq=False)
class Craft:
    """A `Supply`: jobs of one size are attacked together."""

    cell: Cell
    store: CellStore
    segmenter: Segmenter
    attack: Attack
    threat: Threat

    @classmethod
    def of(cls, cell: Cell, store: CellStore, segmenter: Segmenter) -> Craft:
        """The supply of an attack cell."""
        return cls(cell=cell, store=store, segmenter=segmenter, attack=attack_of(cell), threat=threat_of(cell))

    def __call__(self, jobs: Sequence[Job]) -> list[Shot]:
        references = [job.clean.masks() for job in jobs]
        result = self.attack.run(
            self.segmenter,
            torch.stack([job.sample.image for job in jobs]),
            [job.sample.prompts for job in jobs],
            threat=self.threat,
            reference=references,
            seeds=[self._seed(job) for job in jobs],
        )
        regions = self.threat.region_mask(references)
        shots = []
        for i, job in enumerate(jobs):
            path = self.store.put_image(job.sample.id, result.images[i], prompt=job.which)
            image = read_image(path)
            if not torch.equal(to_uint8(image), result.images[i].cpu()):
                raise BudgetViolation(f"{path}: the file does not hold the image that was delivered.")
            region = None if regions is None else regions[i]
            budget = self.threat.check(to_uint8(image), to_uint8(job.sample.image), region, where=job.sample.id)
            losses = result.losses[:, i][result.losses[:, i].isfinite()]
            notes: JsonDict = {
                "steps": result.steps[i],
                "flag": result.flags[i] or None,
                "loss_first": finite(losses[0]) if len(losses) else None,
                "loss_last": finite(losses[-1]) if len(losses) else None,
            }
            if result.queries:
                notes["queries"] = result.queries[i]
            prompts = job.sample.prompts if result.prompts is None else result.prompts[i]
            where = path.relative_to(self.store.folder).as_posix()
            budget = budget._replace(shift=moved(job.sample.prompts, prompts))
            shots.append(Shot(job=job, image=image, path=where, budget=budget, prompts=prompts, notes=notes))
        return shots

    def _seed(self, job: Job) -> int:
        salt = [] if job.which is None else [job.which]
        return stable_seed(self.cell.seed, job.sample.id, "attack", *salt)


def moved(before: Sequence[Prompt], after: Sequence[Prompt]) -> float:
    """How far the farthest prompt of an image moved, in pixels."""
    return max((shift(a, b) for a, b in zip(before, after, strict=True)), default=0.0)
