"""The Ray executor: workers measure, one driver writes.

Records stream back image by image and are stored as in process: picture first, then the record, synced. So a worker
that is killed, or a node that is lost, costs what it was measuring and nothing that was finished. What it had left is
tried again image by image; an image that workers die of again and again becomes a failed record, and a cell with
several such images ends there. A worker gets its next task when it has delivered the last, and waits when the driver is
behind.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from redsam.bench.cluster import Ray, connected, room
from redsam.bench.evaluate import blank
from redsam.bench.files import write_bytes
from redsam.bench.flight import LARGEST, Batching, batch_of
from redsam.bench.lanes import Lane, Lanes
from redsam.bench.plan import label
from redsam.bench.progress import Progress
from redsam.bench.spec import Cell, JsonDict
from redsam.bench.store import CellStore, RunStore, scan
from redsam.bench.worker import Parcel, Piece, Task, Worker
from redsam.errors import InputError

DEATHS = 3  # of workers at an image, the last of them at nothing else, before that image is given up
LOST_IMAGES = 3  # given up in one cell, before the cell is
STILLBORN = 3  # workers in a row that die before they have said a word
BEHIND = 4  # parcels of a worker that wait for the driver before it pauses
WINDOW = 256  # tasks looked at for one that suits a worker


@dataclass(eq=False)
class _Slot:
    """A place for a worker. ready: what the next `ray.wait` looks at: the answer to hello, or a stream of parcels."""

    actor: Any
    ready: Any
    task: Task | None = None
    pid: int = 0
    lane: int | None = None
    homes: set[tuple[int, int]] = field(default_factory=set)


@dataclass(eq=False)
class _Open:
    """A cell that is being filled. left: places of images without a record."""

    store: CellStore
    left: dict[str, int]
    images: int
    told: bool = False
    begun: bool = False
    given_up: int = 0


@dataclass(kw_only=True, eq=False)
class Fleet:
    """Runs lanes on workers into a store that the caller has locked. pids: of the workers at work."""

    plan: Lanes
    store: RunStore
    progress: Progress
    settings: Ray
    batch: Batching = 1
    device: str | None = None
    command: str | None = None
    pids: dict[int, int] = field(default_factory=dict)
    _cells: dict[str, _Open] = field(default_factory=dict)
    _clean: dict[tuple[str, str], str] = field(default_factory=dict)
    _queue: deque[Task] = field(default_factory=deque)
    _env: JsonDict = field(default_factory=dict)
    _stillborn: int = 0

    def run(self) -> None:
        """Bring every cell to its end. Raises InputError for what a worker cannot load, and what the store raises."""
        with connected(self.settings) as ray:
            self._run(ray)

    def _run(self, ray: Any) -> None:
        make, count = self._maker(ray)
        tasks = self._tasks(count)
        slots = [self._hire(make) for _ in range(count)]
        try:
            while self._fill(tasks) or any(slot.task for slot in slots):
                for slot in slots:
                    if slot.ready is None and self._fill(tasks):
                        self._dispatch(slot)
                waiting = {slot.ready: slot for slot in slots if slot.ready is not None}
                for ready in ray.wait(list(waiting), num_returns=1, timeout=5)[0]:
                    slot = waiting[ready]
                    try:
                        self._heard(ray, slot)
                    except ray.exceptions.RayTaskError:
                        raise
                    except ray.exceptions.RayError:
                        self._died(slot)
                        slots[slots.index(slot)] = self._hire(make)
        finally:
            for opened in self._cells.values():
                opened.store.close()
            for slot in slots:
                with contextlib.suppress(Exception):
                    ray.kill(slot.actor)

    def _maker(self, ray: Any) -> tuple[Any, int]:
        """How a worker is made, and how many are wanted."""
        share, count = room(ray, self.settings)
        threads = self.settings.threads
        actor = ray.remote(Worker).options(num_cpus=0 if share else threads, num_gpus=share, max_restarts=0)
        device = self.device or ("cuda" if share else "cpu")
        batch = replace(batch_of(self.batch), parts=1 if share else count)  # a GPU's share is a limit of its own
        arguments = {"device": device, "threads": threads, "batch": batch, "share": share or 1.0}
        return lambda: actor.remote(**arguments), count

    def _hire(self, make: Any) -> _Slot:
        actor = make()
        return _Slot(actor=actor, ready=actor.hello.remote())

    def _heard(self, ray: Any, slot: _Slot) -> None:
        """Take what a worker has to say; `slot.ready` is None when it wants another task."""
        if slot.task is None:
            pid, env = ray.get(slot.ready)
            self._stillborn, self.pids[id(slot)] = 0, pid
            slot.pid, slot.ready = pid, None
            self._env = {**env, "executor": "ray"} | ({"command": self.command} if self.command else {})
            return
        try:
            parcel: Parcel = ray.get(next(slot.ready))
        except StopIteration:
            slot.task = slot.ready = None
            return
        if parcel.trouble:
            raise InputError(parcel.trouble[0], hint=parcel.trouble[1])
        self._commit(parcel, slot.task.lane)

    def _fill(self, tasks: Iterator[Task]) -> bool:
        """Whether there is a task, of which a window is kept at hand."""
        while len(self._queue) < WINDOW and (task := next(tasks, None)) is not None:
            self._queue.append(task)
        return bool(self._queue)

    def _dispatch(self, slot: _Slot) -> None:
        """Give a worker the task that suits it best: images that it has seen, else of the model that it has loaded."""
        window = range(min(WINDOW, len(self._queue)))
        best = min(
            window, key=lambda i: (self._queue[i].home not in slot.homes, self._queue[i].home[0] != slot.lane, i)
        )
        task = self._queue[best]
        del self._queue[best]
        if slot.lane != task.home[0]:
            slot.lane, slot.homes = task.home[0], set()
        slot.homes.add(task.home)
        for piece in task.pieces:
            self._tell(piece.cell)
        slot.task = task
        run = slot.actor.run.options(num_returns="streaming", _generator_backpressure_num_objects=BEHIND)
        slot.ready = run.remote(task)

    def _tell(self, cell: Cell) -> None:
        """A cell begins, if it has not yet."""
        opened = self._cells.get(cell.id)
        if opened is not None and not opened.told:
            opened.told = True
            finished = opened.images - len(opened.left)
            self.progress.cell(cell, label=label(cell), images=opened.images, finished=finished)

    # --- tasks -------------------------------------------------------------------------------------------------------
    def _tasks(self, workers: int) -> Iterator[Task]:
        """Unfinished images of the plan in its order: some images of a large cell, or several small cells at once."""
        total = sum(
            len(self.plan.datasets[lane.source]) for lane in self.plan.lanes for c in lane.cells if not self._done(c)
        )
        unit = batch_of(self.batch).size  # None: a worker finds its own, so a task may hold as many as one can take
        most, unit = (8, unit) if unit else (LARGEST, 1)
        size = max(1, min(most, math.ceil(total / (8 * workers * unit)))) * unit
        for number, lane in enumerate(self.plan.lanes):
            pieces: list[Piece] = []
            for cell in lane.cells:
                left = list(self._begin(cell, lane).values())
                if len(self.plan.datasets[lane.source]) <= size:
                    pieces += [Piece(cell=cell, indices=tuple(left))] if left else []
                    if sum(len(p.indices) for p in pieces) >= size:
                        yield Task(lane=_bare(lane), pieces=tuple(pieces), home=(number, 0))
                        pieces = []
                    continue
                by_home: dict[int, list[int]] = {}
                for index in left:
                    by_home.setdefault(index // size, []).append(index)
                for home, indices in by_home.items():
                    piece = Piece(cell=cell, indices=tuple(indices))
                    yield Task(lane=_bare(lane), pieces=(piece,), home=(number, home))
            if pieces:
                yield Task(lane=_bare(lane), pieces=tuple(pieces), home=(number, 0))

    def _done(self, cell: Cell) -> bool:
        return self.store.cell(cell).done

    def _begin(self, cell: Cell, lane: Lane) -> dict[str, int]:
        """Images of a cell that are to be done; a cell whose last record was written before its mark gets the mark."""
        store = self.store.cell(cell)
        if store.done:
            return {}
        ids = self.plan.datasets[lane.source].ids
        made = {str(r["sample"]) for r in scan(store.samples)}
        opened = _Open(store=store, left={n: i for i, n in enumerate(ids) if n not in made}, images=len(ids))
        self._cells[cell.id] = opened
        if not opened.left:
            self._tell(cell)
            self._finish(opened)
        return dict(opened.left)

    # --- what comes back ---------------------------------------------------------------------------------------------
    def _commit(self, parcel: Parcel, lane: Lane) -> None:
        """Store a parcel: pictures first, then the records that name them."""
        opened = self._cells.get(parcel.cell)
        if opened is None:
            return  # the cell was given up in the meantime
        for name, content in parcel.files.items():
            path = self.store.root / name
            if not (name.startswith("changed/") and path.is_file()):
                write_bytes(path, content)
        for record in parcel.records:
            sample = record["sample"]
            if sample not in opened.left:
                continue
            if sample in parcel.clean:
                record = record | {"clean_image": self._clean_path(lane, sample, parcel.clean[sample])}
            self._write(opened, record)
        if parcel.facts:
            opened.store.note(parcel.facts)

    def _clean_path(self, lane: Lane, sample: str, content: bytes | None) -> str:
        """Where a clean image lies, once it is there."""
        key = lane.cells[0].data["fingerprint"] if lane.cells else str(lane.source), sample
        if content is not None and key not in self._clean:
            self._clean[key] = self.store.put_clean_png(sample, content)
        return self._clean[key]

    def _write(self, opened: _Open, record: JsonDict) -> None:
        if not opened.begun:
            opened.begun = True
            opened.store.open(self._env)
        opened.store.append(record)
        del opened.left[record["sample"]]
        self.progress.image(record)
        if not opened.left:
            self._finish(opened)

    def _finish(self, opened: _Open) -> None:
        opened.store.finish()
        del self._cells[opened.store.cell.id]

    # --- a worker that died ------------------------------------------------------------------------------------------
    def _died(self, slot: _Slot) -> None:
        """Put back what a dead worker had left, image by image; give up an image that workers die of."""
        self.pids.pop(id(slot), None)
        task = slot.task
        if task is None:
            self._stillborn += 1
            if self._stillborn >= STILLBORN:
                raise InputError("Workers die before they start.", hint="Give them more memory, or fewer --workers.")
            return
        alone = sum(len(piece.indices) for piece in task.pieces) == 1
        died, back = task.died + 1, 0
        for piece in task.pieces:
            for index in piece.indices:
                opened = self._cells.get(piece.cell.id)
                sample = next((n for n, i in opened.left.items() if i == index), None) if opened else None
                if opened is None or sample is None:
                    continue  # it has its record
                if alone and died >= DEATHS:
                    self._give_up(opened, piece.cell, sample)
                    continue
                single = replace(piece, indices=(index,))
                self._queue.appendleft(replace(task, pieces=(single,), died=died))
                back += 1
        if back:
            warnings.warn(f"worker {slot.pid or ''} died; {back} images are measured again", stacklevel=2)

    def _give_up(self, opened: _Open, cell: Cell, sample: str) -> None:
        reason = f"WorkerDied: the worker process died {DEATHS} times at this image (killed, or out of memory)"
        self._write(opened, blank(cell, sample, "failed", reason))
        opened.given_up += 1
        if opened.given_up >= LOST_IMAGES:
            reason = f"WorkerDied: not tried, workers died of {opened.given_up} other images of this cell"
            for name in list(opened.left):
                self._write(opened, blank(cell, name, "failed", reason))


def _bare(lane: Lane) -> Lane:
    """The lane without its cells but the first, which says what data it is."""
    return replace(lane, cells=lane.cells[:1])
