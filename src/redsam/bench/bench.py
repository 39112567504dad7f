"""bench: a plan file carried out, in this process or on Ray's workers, into one folder of records."""

from __future__ import annotations

from pathlib import Path

from redsam.bench.cluster import Ray, require
from redsam.bench.environment import environment
from redsam.bench.executor import Executor
from redsam.bench.files import read_json, write_json
from redsam.bench.fleet import Fleet
from redsam.bench.flight import Batch, Batching, batch_of
from redsam.bench.lanes import Lanes, Shelf, make_lanes
from redsam.bench.plan import Plan
from redsam.bench.planfile import PlanFile, read_plan
from redsam.bench.progress import Progress, Silent
from redsam.bench.store import RunStore
from redsam.bench.summary import Summary, summarise


def bench(
    plan: PlanFile | Path | str,
    *,
    out: Path | str,
    on: Ray | None = None,
    device: str | None = None,
    batch: Batching | None = None,
    progress: Progress | None = None,
    command: str | None = None,
) -> Summary:
    """Run every unfinished cell of a plan into the folder `out`; returns what summary.json holds.

    on: the workers, None for this process. device: of this process ("cpu" unless given), or of each worker (its GPU
    where it has one). batch: images of one size attacked together, "auto" for as many as memory holds; None is what the
    plan says. Records are the same wherever they are made, as long as device, threads and a fixed batch are. Models are
    loaded one at a time. Interrupted at any moment and called again, it goes on. Raises InputError, UnknownName for a
    plan that cannot run, MissingExtra without Ray.
    """
    if on is not None:
        require()
    shelf = Shelf(device="cpu" if on is not None else device or "cpu")
    asked = plan if isinstance(plan, PlanFile) else read_plan(plan)
    together = batch_of(batch) if batch is not None else asked.together()
    lanes = make_lanes(asked, shelf=shelf)
    told = progress or Silent()
    store = RunStore(out, ambiguous=lanes.ambiguous)
    with store.lock():
        _announce(lanes, store, told)
        try:
            if on is None:
                _here(lanes, store, shelf, told, together, command)
            elif not all(store.cell(c).done for c in lanes.cells):
                shelf.clear()
                Fleet(
                    plan=lanes, store=store, progress=told, settings=on, batch=together, device=device, command=command
                ).run()
        except KeyboardInterrupt:
            told.stop(f"Stopped. What was finished is in {store.root}; the same command goes on from there.")
            raise
        return summarise(store.root)


def _announce(lanes: Lanes, store: RunStore, progress: Progress) -> None:
    """plan.json, and what is to be done."""
    path = store.root / "plan.json"
    plan = Plan(preset=lanes.name, by_model=tuple(lane.cells for lane in lanes.lanes), samples=tuple(lanes.samples))
    write_json(path, plan.to_json(read_json(path) if path.exists() else None))
    counts = [(len(lanes.datasets[lane.source]), store.cell(c).done) for lane in lanes.lanes for c in lane.cells]
    units = sum(n for n, _ in counts), sum(n for n, done in counts if done)
    progress.start(
        cells=len(counts),
        finished=sum(done for _, done in counts),
        images=max((n for n, _ in counts), default=0),
        units=units,
    )


def _here(lanes: Lanes, store: RunStore, shelf: Shelf, progress: Progress, batch: Batch, command: str | None) -> None:
    """Lane by lane in this process."""
    for lane in lanes.lanes:
        left = [cell for cell in lane.cells if not store.cell(cell).done]
        if not left:
            continue
        segmenter = shelf.get(lane)
        env = environment(segmenter.device) | ({"command": command} if command else {})
        executor = Executor(
            store=store,
            segmenter=segmenter,
            dataset=lanes.datasets[lane.source],
            env=env,
            progress=progress,
            batch=batch,
        )
        for cell in left:
            executor.run(cell)
