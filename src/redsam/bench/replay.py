"""Replay: the stored images of an attack cell, shown to another model or asked with other prompts.

Nothing is attacked again: every image is read from the source cell's files, measured again, and scored. An image that
the source does not have becomes a failed record that says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from redsam.bench import rle
from redsam.bench.craft import moved
from redsam.bench.plan import threat_of
from redsam.bench.shots import Job, Shot
from redsam.bench.spec import Cell, JsonDict
from redsam.bench.store import read_records
from redsam.data import read_image
from redsam.errors import BudgetViolation, RedsamError
from redsam.prompts import Prompt
from redsam.threat import Threat
from redsam.types import Sample, to_uint8


class SourceMissing(RedsamError):
    """The source cell has no image of a sample."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Replay:
    """A `Supply`: images of the cell that `cell.probe` names, below `root`."""

    cell: Cell
    root: Path
    threat: Threat
    records: Mapping[str, JsonDict] = field(default_factory=dict)

    @classmethod
    def of(cls, cell: Cell, root: Path) -> Replay:
        """The supply of a replay cell; reads the source cell's records."""
        found = {r["sample"]: r for r in read_records(root / "records" / cell.probe["of"] / "samples.jsonl")}
        return cls(cell=cell, root=root, threat=threat_of(cell), records=found)

    def require(self, sample: Sample) -> None:
        """Raise SourceMissing, with the reason, unless every prompt of the sample has its image."""
        whole = [self._entry(sample, None)] if self.cell.joint else []
        apart = range(0 if self.cell.joint else len(sample.prompts))
        for entry in [*whole, *(self._entry(sample, i) for i in apart)]:
            if not entry.get("image") or not self._path(entry).is_file():
                raise SourceMissing(f"{self._who} left no image of {sample.id}.")

    def __call__(self, jobs: Sequence[Job]) -> list[Shot]:
        return [self._shot(job) for job in jobs]

    def _shot(self, job: Job) -> Shot:
        entry = self._entry(job.sample, job.which)
        path = self._path(entry)
        image = read_image(path)
        if image.shape != job.sample.image.shape:
            raise SourceMissing(f"{path.name} of {self._who} has another size than {job.sample.id}.")
        parts = self._parts(job, entry)
        region = self.threat.region_mask([rle.decode([p["rle_clean"] for p in parts], size=job.sample.size)])
        base = to_uint8(job.sample.image)
        budget = self.threat.check(to_uint8(image), base, None if region is None else region[0], where=str(path))
        prompts = job.sample.prompts
        if self.threat.norm == "shift":
            prompts = tuple(_placed(p, e["geometry"]) for p, e in zip(prompts, parts, strict=True))
            budget = budget._replace(shift=moved(job.sample.prompts, prompts))
            if budget.shift > self.threat.eps * (1 + 1e-6) + 1e-6:
                raise BudgetViolation(f"{path}: a prompt moved by {budget.shift:g} pixels, not {self.threat.label}.")
        where = path.relative_to(self.root).as_posix()
        notes = {"flag": entry.get("flag")}
        return Shot(job=job, image=image, path=where, budget=budget, prompts=prompts, notes=notes)

    @property
    def _who(self) -> str:
        return f"{self.cell.probe['name']} on {self.cell.source}"

    def _entry(self, sample: Sample, which: int | None) -> Mapping[str, Any]:
        """What the source's record says of the image: the record itself, or the entry of the prompt it is for."""
        found = self.records.get(sample.id)
        if found is None:
            raise SourceMissing(f"{self._who} has no record of {sample.id}.")
        if found["status"] != "ok":
            raise SourceMissing(f"{self._who} {found['status']} {sample.id}: {found['reason']}")
        if which is None:
            return found
        if self.cell.protocol == self.cell.probe["protocol"]:
            return _or_nothing(found["prompts"][which : which + 1])
        # Asked with other prompts: the image that was made for (the first prompt of) the same object.
        position = which if len(sample.prompts) > 1 else 0
        return _or_nothing([p for p in found["prompts"] if p["object"] == sample.objects[position]])

    def _parts(self, job: Job, entry: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """The source's entries of the prompts that this image was made for."""
        return [entry] if job.which is not None else list(entry["prompts"])

    def _path(self, entry: Mapping[str, Any]) -> Path:
        return self.root / "records" / str(self.cell.probe["of"]) / str(entry["image"])


def _or_nothing(found: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return found[0] if found else {}


def _placed(prompt: Prompt, geometry: Mapping[str, Any]) -> Prompt:
    """The prompt where a record says that an attack moved it."""
    points = tuple((float(x), float(y)) for x, y in geometry.get("points", ()))
    box = geometry.get("box")
    if box is None:
        return replace(prompt, points=points)
    x0, y0, x1, y1 = (float(v) for v in box)
    return replace(prompt, points=points, box=(x0, y0, x1, y1))
