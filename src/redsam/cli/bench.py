"""`redsam bench PLAN.yaml`: models x defences x probes x prompts x data, here or on Ray's workers."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from redsam.cli import options
from redsam.cli.audit import Bar
from redsam.cli.console import Stopped, out

EXECUTORS = ("in-process", "ray")


def command(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.yaml", help="What to run; see docs/bench.md.")],
    folder: Annotated[Path, options.out_option("Where report and records go; the same again goes on.")] = Path(
        "redsam-bench"
    ),
    executor: Annotated[str, typer.Option("--executor", "-e", help="in-process, or ray.")] = EXECUTORS[0],
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to join, auto for the one at hand; default: this machine alone.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Ray workers; default: as many as there is room for.")
    ] = None,
    gpus_per_worker: Annotated[
        str | None, typer.Option(metavar="SHARE", help="Of a GPU for each worker: 0.5, 1, 12GB; default: 1 if any.")
    ] = None,
    threads_per_worker: Annotated[int, typer.Option(min=1, help="CPU threads of each Ray worker.")] = 1,
    device: options.Device = "auto",
    batch_size: Annotated[
        str | None,
        typer.Option(metavar="N|auto", help="Images of one size together; auto: as memory holds; default: the plan's."),
    ] = None,
    memory: options.Memory = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say which cells there are, run none.")] = False,
) -> None:
    """Run a plan of many models, defences, attacks, corruptions, prompts and data sets; every audit is such a plan.

    Interrupted and typed again, it goes on where it was, with either executor.
    """
    from redsam.bench.bench import bench
    from redsam.bench.cluster import Ray, require
    from redsam.bench.lanes import Shelf, make_lanes
    from redsam.bench.plan import label
    from redsam.bench.planfile import read_plan
    from redsam.registry import unknown
    from redsam.report import render

    if executor not in EXECUTORS:
        raise unknown("executor", executor, list(EXECUTORS))
    asked = read_plan(plan)
    together = asked.together(batch_size, memory)
    if dry_run:
        lanes = make_lanes(asked, shelf=Shelf())
        for lane in lanes.lanes:
            for cell in lane.cells:
                out().print(f"{cell.id}  {cell.data['name']}  {label(cell)}", markup=False)
        return
    on = None
    if executor == "ray":
        require()
        on = Ray(address=address, workers=workers, gpus=gpus_per_worker, threads=threads_per_worker)
    options.folder(folder)
    bar = Bar()
    try:
        bench(
            asked,
            out=folder,
            on=on,
            device=None if on is not None and device == "auto" else options.device_of(device),
            batch=together,
            progress=bar,
            command=_typed(plan, folder, executor, batch_size, memory),
        )
    except KeyboardInterrupt:
        raise Stopped(bar.farewell) from None
    finally:
        bar.close()
    out().print(str(render(folder)), markup=False)


def _typed(plan: Path, folder: Path, executor: str, batch: str | None, memory: str | None) -> str:
    """The command that makes this run again, for the report."""
    words = ["redsam", "bench", str(plan), "--out", str(folder)]
    words += ["--executor", executor] if executor != EXECUTORS[0] else []
    words += options.typed_batch(batch, memory)
    return shlex.join(words)
