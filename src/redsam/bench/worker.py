"""What a worker process does: load a model once, measure images of cells, send records and pictures as they come.

Nothing here knows Ray. A worker keeps no run: its store is a scratch folder, and what lies there goes out in a parcel
with the record that names it, so that the one writer, the driver, has both.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from redsam import heap
from redsam.bench.environment import environment
from redsam.bench.executor import Executor
from redsam.bench.flight import Batching, batch_of
from redsam.bench.lanes import Lane, Shelf
from redsam.bench.memory import out_of_memory
from redsam.bench.plan import identity, slice_of
from redsam.bench.progress import Silent
from redsam.bench.spec import Cell, JsonDict
from redsam.bench.store import CellStore, RunStore
from redsam.errors import InputError, RedsamError


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Some images of a cell, by their place in the data set."""

    cell: Cell
    indices: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a worker is given at a time. lane: what to load (its cells are not needed). home: tasks of one home ask the
    same images, and are best done by the worker that knows their clean answers. died: how often a worker died of it."""

    lane: Lane
    pieces: tuple[Piece, ...]
    home: tuple[int, int]
    died: int = 0


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """Finished records of one cell. files: pictures by their path below the run's folder. clean: the clean image of
    each sample as PNG; None where this worker has sent it before. facts: for the cell's env.json, where there are new
    ones. trouble: what ends the run instead, in words."""

    cell: str = ""
    records: tuple[JsonDict, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    clean: Mapping[str, bytes | None] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    trouble: tuple[str, str] | None = None


class Worker:
    """device, threads, batch: as for an audit. share: of a GPU's memory that this worker may fill."""

    def __init__(self, *, device: str, threads: int, batch: Batching, share: float = 1.0) -> None:
        torch.set_num_threads(threads)
        heap.keep()
        if device.startswith("cuda") and share < 1:  # a worker that wants more fails alone, not its neighbour
            torch.cuda.set_per_process_memory_fraction(share)
        asked, here = batch_of(batch), max(1, (os.cpu_count() or 1) // threads)  # workers on this machine at most
        self._device, self._batch = device, replace(asked, parts=min(asked.parts, here))
        self._shelf = Shelf(device=device)
        self._root = Path(tempfile.mkdtemp(prefix="redsam-worker-"))
        self._lane: Lane | None = None
        self._executor: Executor | None = None
        self._sent: set[str] = set()

    def hello(self) -> tuple[int, JsonDict]:
        """Process id, and what this worker runs on."""
        return os.getpid(), environment(torch.device(self._device)) | {"batch": self._batch.told()}

    def load(self, lane: Lane) -> None:
        """Make a lane ready before its first task; whatever goes wrong then says so again."""
        self._ready(lane)

    def run(self, task: Task) -> Iterator[Parcel]:
        """Parcels of a task, one for each group of images."""
        try:
            executor = self._ready(task.lane)
            for piece in task.pieces:
                self._check(executor, piece.cell)
                yield from self._measure(executor, piece)
        except RedsamError as error:  # as data: exceptions do not all survive the way between processes
            yield Parcel(trouble=(error.message, error.hint))
        except (MemoryError, RuntimeError) as error:
            if out_of_memory(error):  # while loading: another worker may have the room
                os._exit(1)
            raise

    def close(self) -> None:
        """Take the scratch folder away."""
        shutil.rmtree(self._root, ignore_errors=True)

    def _ready(self, lane: Lane) -> Executor:
        lane = replace(lane, cells=())
        if self._executor is None or self._lane != lane:
            self._executor = None  # its tensors go before others come
            shutil.rmtree(self._root, ignore_errors=True)
            self._sent.clear()
            self._executor = Executor(
                store=_Scratch(self._root),
                segmenter=self._shelf.get(lane),
                dataset=lane.source.open(),
                env={},
                progress=Silent(),
                batch=self._batch,
            )
            self._lane = lane
        return self._executor

    def _check(self, executor: Executor, cell: Cell) -> None:
        """The plan was made elsewhere: the same weights and the same photographs must be here."""
        here = identity(executor.segmenter)
        if here["model"] != dict(cell.model) or here["defense"] != cell.defense:
            raise InputError(
                f"A worker loads another model as '{cell.model['name']}' than the plan was made with.",
                hint="Copy the weights to every machine.",
            )
        if slice_of(executor.dataset) != dict(cell.data):
            raise InputError(
                f"A worker finds other photographs as '{cell.data['name']}' than the plan was made with.",
                hint="Copy the data to every machine, to the same path.",
            )

    def _measure(self, executor: Executor, piece: Piece) -> Iterator[Parcel]:
        store = executor.store.cell(piece.cell)
        assert isinstance(store, _Outbox)
        for _ in executor.measure(piece.cell, store, piece.indices):
            executor.note(piece.cell, store)
            records = store.take()
            if records:
                yield self._parcel(store, records)

    def _parcel(self, store: _Outbox, records: list[JsonDict]) -> Parcel:
        files: dict[str, bytes] = {}
        clean: dict[str, bytes | None] = {}
        for record in records:
            for one in (record, *record["prompts"]):
                name = one.get("image")
                if name and name not in files:
                    own = store.folder / name  # below the cell, or, of a corruption, below the run
                    path = own if own.is_file() else self._root / name
                    files[path.relative_to(self._root).as_posix()] = path.read_bytes()
                    path.unlink()
            if record["clean_image"]:
                path = self._root / record["clean_image"]
                clean[record["sample"]] = None if record["sample"] in self._sent else path.read_bytes()
                self._sent.add(record["sample"])
                path.unlink(missing_ok=True)
        return Parcel(cell=store.cell.id, records=tuple(records), files=files, clean=clean, facts=store.news())


class _Scratch(RunStore):
    """A run's folder in which records are not written but taken."""

    def cell(self, cell: Cell) -> CellStore:
        return _Outbox(self.root, cell)


class _Outbox(CellStore):
    """A cell whose records wait to be taken; its pictures are files."""

    def __init__(self, root: Path, cell: Cell) -> None:
        super().__init__(root, cell)
        self._waiting: list[JsonDict] = []
        self._facts: JsonDict = {}
        self._told: JsonDict = {}

    def note(self, facts: Mapping[str, Any]) -> None:
        self._facts = dict(facts)

    def news(self) -> JsonDict:
        """What was noted, if it was not told before."""
        if self._facts == self._told:
            return {}
        self._told = self._facts
        return self._facts

    def append(self, record: JsonDict) -> None:
        self._waiting.append(record)

    def take(self) -> list[JsonDict]:
        """What was recorded since."""
        taken, self._waiting = self._waiting, []
        return taken
