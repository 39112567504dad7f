"""The in-process executor: runs a cell image by image, and turns whatever goes wrong with an image into a record.

What is scored is the delivered PNG, read back from disk (promise 2), crafted here (craft.py), by another cell
(replay.py), or corrupted (weathered.py). Images of one size are attacked together, up to `batch`, and where every
prompt has an image of its own (joint=False) up to `batch` of those; how many that is may be measured (flight.py), and
when memory runs out it is halved and tried again. Every record says how many were worked on together. Only three things
end a run: storage that takes no more, a budget that was violated, and the user.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from redsam.bench.craft import Craft
from redsam.bench.evaluate import Answer, answer, blank, nothing, record, recorded
from redsam.bench.files import StorageError
from redsam.bench.flight import Batching, Flight, batch_of
from redsam.bench.memory import out_of_memory, peak_mb, release
from redsam.bench.objects import Sampler
from redsam.bench.plan import CLEAN, label
from redsam.bench.progress import Progress
from redsam.bench.replay import Replay, SourceMissing
from redsam.bench.shots import Shot, Supply, attacked_record, jobs_of
from redsam.bench.spec import Cell, JsonDict, canonical
from redsam.bench.store import CellStore, RunStore, scan
from redsam.bench.weathered import Weathered
from redsam.data import Dataset
from redsam.errors import BudgetViolation
from redsam.models.base import Segmenter
from redsam.types import Sample, to_uint8

# Errors that are no image's own fault and must not become one failed record after another.
FATAL = (StorageError, BudgetViolation)


@dataclass(kw_only=True, eq=False)
class Executor:
    """Runs cells of one segmenter on one dataset.

    Clean predictions are made once for each protocol and kept (as run-length codes) for all attack cells of the run;
    those whose clean cell has a record already are read from it. batch: images of one size attacked together; what was
    found by measuring holds for all cells that do the same work.
    """

    store: RunStore
    segmenter: Segmenter
    dataset: Dataset
    env: Mapping[str, Any]
    progress: Progress
    batch: Batching = 1
    sampler: Sampler = field(init=False)
    _clean: dict[tuple[str, str], tuple[Answer, str]] = field(default_factory=dict)
    _read: set[str] = field(default_factory=set)
    _flights: dict[str, Flight] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sampler = Sampler(segmenter=self.segmenter, dataset=self.dataset)

    def run(self, cell: Cell) -> None:
        """Bring one cell to its end; records that are there already stay."""
        store = self.store.cell(cell)
        try:
            done = set(store.open({**self.env, "batch": batch_of(self.batch).told()}))
            pending = [i for i, name in enumerate(self.dataset.ids) if name not in done]
            self.progress.cell(cell, label=label(cell), images=len(self.dataset), finished=len(done))
            for _ in self.measure(cell, store, pending):
                pass
            store.finish()
            self.note(cell, store)
        finally:
            store.close()

    def note(self, cell: Cell, store: CellStore) -> None:
        """What was found out about the batch goes beside the cell's records."""
        flight = self.flight(cell)
        if flight.asked.size is None or flight.halved:
            store.note({"batch": flight.facts()})

    def flight(self, cell: Cell) -> Flight:
        """How many images a cell takes at a time. Measured for all cells that do the same work, on which neither budget
        nor photographs bear; a fixed number is each cell's own."""
        asked = batch_of(self.batch)
        alike = [cell.probe, cell.protocol, cell.objects, cell.select, cell.joint]
        kind = cell.id if asked.size is not None else canonical(alike)
        return self._flights.setdefault(kind, Flight(asked=asked, device=self.segmenter.device))

    def measure(self, cell: Cell, store: CellStore, indices: Sequence[int]) -> Iterator[None]:
        """Record these images of a cell in an open store, and pause after each group of them."""
        work = _Work(run=self, cell=cell, store=store)
        for group in work.groups(indices):
            work.attempt(group)
            yield
        yield  # the last images may have been unreadable, which makes no group

    def clean(self, cell: Cell, samples: Sequence[Sample]) -> list[tuple[Answer, str]]:
        """Clean answers of samples of one size, and where their images lie below the root; from memory where known."""
        self._recall(cell)
        keys = [(_protocol_key(cell), s.id) for s in samples]
        missing = [i for i, key in enumerate(keys) if key not in self._clean]
        if missing:
            found = predict(self.segmenter, cell, [samples[i] for i in missing])
            for i, one in zip(missing, found, strict=True):
                path = self.store.put_clean(samples[i].id, to_uint8(samples[i].image))
                self._clean[keys[i]] = (one, path)
        return [self._clean[key] for key in keys]

    def _recall(self, cell: Cell) -> None:
        """Take what the clean cell beside this one has on the disk, once for each protocol."""
        protocol = _protocol_key(cell)
        if protocol in self._read:
            return
        self._read.add(protocol)
        beside = replace(cell, probe=CLEAN, threat=None, joint=True)
        for one in scan(self.store.cell(beside).samples):
            if one["status"] == "ok" and (self.store.root / one["clean_image"]).exists():
                self._clean[protocol, one["sample"]] = (recorded(one), one["clean_image"])


def predict(segmenter: Segmenter, cell: Cell, samples: Sequence[Sample]) -> list[Answer]:
    """The model's final answers to samples of one size, as its users get them."""
    images = torch.stack([s.image for s in samples])
    select: Any = cell.select
    reference = [s.masks for s in samples if s.masks is not None] if select == "best" else None
    masks = segmenter.predict(images, [s.prompts for s in samples], select=select, reference=reference)
    return [answer(s, m) for s, m in zip(samples, masks, strict=True)]


def _protocol_key(cell: Cell) -> str:
    return canonical([cell.protocol, cell.objects, cell.select, cell.seed])


@dataclass(kw_only=True, eq=False)
class _Work:
    """One cell while it runs."""

    run: Executor
    cell: Cell
    store: CellStore
    flight: Flight = field(init=False)
    supply: Supply | None = field(init=False)

    def __post_init__(self) -> None:
        self.flight = self.run.flight(self.cell)
        if self.cell.clean:
            self.supply = None
        elif self.cell.replay:
            self.supply = Replay.of(self.cell, self.run.store.root)
        elif self.cell.natural:
            self.supply = Weathered.of(self.cell, self.run.store.root)
        else:
            self.supply = Craft.of(self.cell, self.store, self.run.segmenter)

    def groups(self, pending: Sequence[int]) -> Iterator[list[Sample]]:
        """Samples of one size, up to `batch`; images that cannot be read or have nothing to prompt are recorded here.

        At most 4 batches wait for companions of their size, so memory stays bounded on a folder of many sizes.
        """
        waiting: dict[tuple[int, int], list[Sample]] = {}
        for index in pending:
            sample = self._load(index)
            if sample is None:
                continue
            group = waiting.setdefault(sample.size, [])
            group.append(sample)
            if len(group) >= self.flight.size(sample.size):
                yield waiting.pop(sample.size)
            elif sum(map(len, waiting.values())) >= 4 * self.flight.most:
                yield waiting.pop(max(waiting, key=lambda size: len(waiting[size])))
        yield from waiting.values()

    def attempt(self, group: list[Sample]) -> None:
        """Measure a group and record it; on failure its halves, or its images one by one; at last a failed record."""
        error = self._try(group)
        while error is not None and out_of_memory(error):
            tried = self._together(group)
            self.flight.ran_out(group[0].size, tried)
            error.__traceback__ = None  # its frames hold the tensors that filled the memory
            release()
            if len(group) > 1:
                break
            error = self._try(group)
            if tried == 1:
                break
        if error is None:
            return
        if len(group) == 1:
            self._give_up(group[0].id, error)
            return
        halve, start = out_of_memory(error), 0
        while start < len(group):  # half of them may be too many, too
            size = self.flight.size(group[0].size) if halve else 1
            self.attempt(group[start : start + size])
            start += size

    def _try(self, group: list[Sample]) -> Exception | None:
        """Measure a group and record it whole, or return what went wrong."""
        device, count = self.run.segmenter.device, self._together(group)
        self.flight.begin(group[0].size, count)
        began = time.perf_counter()
        try:
            records = self._records(group)
        except FATAL:
            raise
        except Exception as error:  # whatever a model, an attack or a device throws is a result of this image
            return error
        seconds = round((time.perf_counter() - began) / len(group), 4)
        self.flight.went(group[0].size, count)
        for one in records:
            self._write(one | {"seconds": seconds, "peak_mb": peak_mb(device), "batch": count})
        return None

    def _together(self, group: Sequence[Sample]) -> int:
        """Images that are worked on at the same time: those of the group, or of its prompts as many as fit."""
        if self.cell.joint:
            return len(group)
        return min(self.flight.size(group[0].size), sum(len(s.prompts) for s in group))

    def _records(self, group: list[Sample]) -> list[JsonDict]:
        if self.supply is not None:
            return self._attack_records(group, self.supply)
        known = self.run.clean(self.cell, group)
        return [
            record(self.cell, s, one, extra={"clean_image": path, "steps": 0})
            for s, (one, path) in zip(group, known, strict=True)
        ]

    def _attack_records(self, group: list[Sample], supply: Supply) -> list[JsonDict]:
        known = self.run.clean(self.cell, group)
        owned = [jobs_of(self.cell, s, clean) for s, (clean, _) in zip(group, known, strict=True)]
        jobs = [job for mine in owned for job in mine]
        shots: list[Shot] = []
        answers: list[Answer] = []
        size = self._together(group)
        for start in range(0, len(jobs), size):
            some = supply(jobs[start : start + size])
            answers += self._ask(some)
            shots += some
        out, first = [], 0
        for sample, (clean, path), mine in zip(group, known, owned, strict=True):
            these = slice(first, first + len(mine))
            out.append(attacked_record(self.cell, sample, clean, path, shots[these], answers[these]))
            first += len(mine)
        return out

    def _ask(self, shots: Sequence[Shot]) -> list[Answer]:
        """The model's answers; none to an image that all prompts left."""
        asked = [shot.sample for shot in shots]
        found = iter(predict(self.run.segmenter, self.cell, some) if (some := [s for s in asked if s.prompts]) else ())
        return [next(found) if s.prompts else nothing(s) for s in asked]

    def _load(self, index: int) -> Sample | None:
        name = self.run.dataset.ids[index]
        try:
            sample = self.run.sampler.sample(self.cell, index)
        except Exception as error:  # a broken file is a record, and decoders raise nearly anything
            self._give_up(name, error)
            return None
        if not sample.prompts:
            self._write(blank(self.cell, name, "skipped", str(sample.meta.get("skip") or "nothing to prompt")))
            return None
        if isinstance(self.supply, Replay):
            try:
                self.supply.require(sample)
            except SourceMissing as error:
                self._give_up(name, error)
                return None
        return sample

    def _give_up(self, sample: str, error: Exception) -> None:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        self._write(blank(self.cell, sample, "failed", reason[:500]))

    def _write(self, one: JsonDict) -> None:
        self.store.append(one)
        self.run.progress.image(one)
