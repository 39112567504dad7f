"""Ray on one machine: cells per second of several workers against one, every worker on one thread.

Each arm runs the same plan (a model, box and point prompts, PGD at two budgets, the bundled photographs) into a fresh
folder. The clock starts when every worker has loaded the model and stops with the last record, so that neither Ray's
start nor loading counts; what the driver does (pictures, synced records) does. Arms run in turn, the median of the
rounds is told, and the records of all arms must be equal.

    python benchmarks/ray_scaling.py                        # 1, 2 and 4 workers, as many as there are cores
    python benchmarks/ray_scaling.py --steps 2 --images 4 --workers 1 2 --rounds 1
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from redsam.bench import RunStore, Silent, read_records
from redsam.bench.cluster import Ray, connected
from redsam.bench.evaluate import comparable
from redsam.bench.fleet import Fleet
from redsam.bench.lanes import Lanes, Shelf, make_lanes
from redsam.bench.planfile import plan_of

TARGETS = {4: 3.2, 2: 1.7}  # times the cells per second of one worker, on as many cores


class Warm(Fleet):
    """A fleet that waits until every worker has its model before the clock starts."""

    began = 0.0

    def _heard(self, ray: Any, slot: Any) -> None:
        super()._heard(ray, slot)
        if slot.task is None and slot.ready is None and not self.began:
            ray.get(slot.actor.load.remote(replace(self.plan.lanes[0], cells=())))
            self._warm = getattr(self, "_warm", 0) + 1

    def _dispatch(self, slot: Any) -> None:
        if not self.began and getattr(self, "_warm", 0) < (self.settings.workers or 1):
            return
        self.began = self.began or time.perf_counter()
        super()._dispatch(slot)


def arm(lanes: Lanes, workers: int, threads: int, out: Path) -> tuple[float, float]:
    """(seconds of the work, seconds with starting Ray)."""
    store = RunStore(out)
    settings = Ray(workers=workers, threads=threads)
    whole = time.perf_counter()
    with connected(settings), store.lock():
        fleet = Warm(plan=lanes, store=store, progress=Silent(), settings=settings)
        fleet.run()
        done = time.perf_counter()
    assert all(store.cell(c).done for c in lanes.cells)
    return done - fleet.began, time.perf_counter() - whole


def same(out: Path) -> dict[tuple[str, str], Any]:
    """Every record without its times."""
    found = [r for cell in RunStore(out).cells() for r in read_records(cell.samples)]
    return {(r["cell"], r["sample"]): comparable(r) for r in found}


def main() -> int:
    """Run the arms, print the ratios, write the JSON."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lab-b")
    parser.add_argument("--images", type=int, default=12, help="bundled photographs")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--workers", type=int, nargs="+", default=[n for n in (1, 2, 4) if n <= cores])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ray_scaling.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    probes = [{"attack": "pgd", "args": {"steps": args.steps}, "threats": ["4/255", "8/255"]}]
    prompts = [{"name": name, "args": {"max_objects": 3}} for name in ("point", "box")]
    plan = plan_of({"models": [args.model], "prompts": prompts, "probes": probes, "limit": args.images})
    lanes = make_lanes(plan, shelf=Shelf())
    seconds: dict[int, list[tuple[float, float]]] = {n: [] for n in args.workers}
    first = None
    for _ in range(args.rounds):
        for workers in args.workers:
            with tempfile.TemporaryDirectory() as folder:
                seconds[workers].append(arm(lanes, workers, 1, Path(folder)))
                found = same(Path(folder))
            first = first or found
            if found != first:
                print("the records of two arms differ", file=sys.stderr)
                return 1
    cells = len(lanes.cells)
    arms = []
    for workers in args.workers:
        median = statistics.median(s for s, _ in seconds[workers])
        base = statistics.median(s for s, _ in seconds[args.workers[0]])
        ratio, target = base / median, TARGETS.get(workers) if cores >= workers else None
        arms.append(
            {"workers": workers, "seconds": [round(s, 3) for s, _ in seconds[workers]],
             "with_start": [round(s, 3) for _, s in seconds[workers]], "cells_per_second": cells / median,
             "ratio": ratio, "target": target}
        )  # fmt: skip
        aim = f" (at least {target})" if target else ""
        print(f"{workers} workers: {cells / median:.3f} cells/s, {ratio:.2f} times those of {args.workers[0]}{aim}")
    told = {"command": "python benchmarks/ray_scaling.py", "model": args.model, "images": args.images,
            "steps": args.steps, "cells": cells, "cores": cores, "load": os.getloadavg(), "rounds": args.rounds,
            "equal_records": True, "arms": arms}  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(told, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
