"""Lanes: a plan file becomes one lane for each model, defence and data set, with the cells that run there.

A lane says what to load and what to run in plain text and numbers, so that it can be sent to another process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from redsam.bench.objects import find_objects
from redsam.bench.plan import make_plan, slice_of
from redsam.bench.planfile import DataEntry, PlanFile
from redsam.bench.run import check_cells
from redsam.bench.spec import Cell
from redsam.data import Dataset, open_data
from redsam.defenses import DefendedSegmenter, chain, load
from redsam.defenses.specs import BETWEEN
from redsam.errors import InputError
from redsam.models.base import Segmenter
from redsam.models.lab import lab_folder


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a data set is: what `open_data` takes."""

    path: str
    reader: str | None
    limit: int | None

    def open(self) -> Dataset:
        """The data set. Raises InputError."""
        return open_data(self.path, reader=self.reader, limit=self.limit)


@dataclass(frozen=True, kw_only=True)
class Lane:
    """model: text as `load` takes it, behind `defenses`. seed: of what these draw. cells: clean cells come first."""

    model: str
    dtype: str
    defenses: tuple[str, ...]
    seed: int
    source: Source
    cells: tuple[Cell, ...] = ()


@dataclass(kw_only=True, eq=False)
class Shelf:
    """Loads models one at a time: the last stays, behind whatever defence is asked, until another is wanted."""

    device: str = "cpu"
    _key: tuple[str, str] | None = None
    _model: Segmenter | None = None

    def get(self, lane: Lane) -> Segmenter:
        """The lane's model behind its defences. Raises what `load` raises."""
        name, _, behind = lane.model.partition(BETWEEN)
        passed = (*chain(behind), *chain(lane.defenses))
        key = name.strip(), lane.dtype
        if self._model is None or self._key != key:
            self.clear()  # first, so that two never share the memory
            self._model = load(key[0], device=self.device, dtype=getattr(torch, lane.dtype))
            self._key = key
        return DefendedSegmenter(self._model, passed, seed=lane.seed) if passed else self._model

    def clear(self) -> None:
        """Let the model go."""
        self._model = self._key = None


@dataclass(frozen=True, kw_only=True)
class Lanes:
    """lanes: in the order they run. datasets: each data set, opened."""

    name: str
    lanes: tuple[Lane, ...]
    datasets: dict[Source, Dataset] = field(default_factory=dict)

    @property
    def cells(self) -> list[Cell]:
        """All cells."""
        return [cell for lane in self.lanes for cell in lane.cells]

    @property
    def samples(self) -> list[str]:
        """Names of all images, each once."""
        return list(dict.fromkeys(name for data in self.datasets.values() for name in data.ids))

    @property
    def ambiguous(self) -> frozenset[str]:
        """Names that are in several data sets, which may mean several photographs."""
        seen: set[str] = set()
        twice: set[str] = set()
        for data in {data.fingerprint: data for data in self.datasets.values()}.values():
            twice |= seen & set(data.ids)
            seen |= set(data.ids)
        return frozenset(twice)


def make_lanes(plan: PlanFile, *, shelf: Shelf) -> Lanes:
    """Every cell of a plan; each model is loaded once to see what it is. Raises InputError for what cannot run."""
    asked = plan.asked()
    for defenses in plan.defenses:
        chain(defenses)  # a slip in one costs no time
    datasets: dict[Source, Dataset] = {}
    for entry in plan.data:
        source = _source(entry, asked.limit)
        datasets[source] = source.open()
        slice_of(datasets[source])
    objects = {source: plan.objects or find_objects(data) for source, data in datasets.items()}
    names: dict[str, str] = {}
    seen: set[str] = set()
    lanes = []
    for model in plan.models:
        for defenses in plan.defenses:
            for source, data in datasets.items():
                lane = Lane(model=model.name, dtype=model.dtype, defenses=defenses, seed=plan.seed, source=source)
                segmenter = shelf.get(lane)
                made = make_plan(
                    [segmenter], data, asked, objects=objects[source], select=plan.select, seed=plan.seed
                ).cells
                check_cells(segmenter, made, data)
                weights = str(made[0].model["fingerprint"])
                if names.setdefault(segmenter.undefended.name, weights) != weights:
                    raise InputError(
                        f"Two of the models are called '{segmenter.undefended.name}'.",
                        hint="Rename one of the folders.",
                    )
                cells = tuple(cell for cell in made if cell.id not in seen)
                seen |= {cell.id for cell in cells}
                if cells:
                    lanes.append(_with_cells(lane, cells))
    return Lanes(name=plan.name, lanes=tuple(lanes), datasets=datasets)


def _source(entry: DataEntry, limit: int | None) -> Source:
    path = Path(entry.path).expanduser()
    # Absolute, because a worker may stand in another folder.
    where = str(path.resolve()) if entry.path != "demo" and path.exists() else entry.path
    return Source(path=where, reader=entry.reader, limit=entry.limit or limit)


def _with_cells(lane: Lane, cells: Sequence[Cell]) -> Lane:
    """The lane with its cells, and with an absolute path where the model is one on this disk: a worker may stand in
    another folder."""
    name, between, behind = lane.model.partition(BETWEEN)
    path = Path(name.strip()).expanduser()
    if lab_folder(name.strip()) is None and path.exists():
        name = str(path.absolute())
    return replace(lane, model=f"{name}{between}{behind}", cells=tuple(cells))
