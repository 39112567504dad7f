"""Carry out a plan: lock the folder, write the plan, run every unfinished cell, summarise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from redsam import registry
from redsam.attacks.check import FOLLOW_GRADIENTS, blind
from redsam.bench.environment import environment
from redsam.bench.executor import Executor
from redsam.bench.files import read_json, write_json
from redsam.bench.flight import Batching
from redsam.bench.objects import prompt_kinds
from redsam.bench.plan import Plan
from redsam.bench.progress import Progress
from redsam.bench.spec import Cell, canonical
from redsam.bench.store import RunStore
from redsam.bench.summary import Summary, summarise
from redsam.data import Dataset
from redsam.errors import InputError
from redsam.models.base import Segmenter


def carry_out(
    out: Path | str,
    segmenters: Sequence[Segmenter],
    dataset: Dataset,
    plan: Plan,
    *,
    progress: Progress,
    batch: Batching = 1,
    command: str | None = None,
) -> Summary:
    """Run the plan's cells, `plan.by_model[i]` on `segmenters[i]`, in order; a model may come more than once.

    Raises InputError for cells that cannot run on their model, before anything does.
    """
    store = RunStore(out)
    with store.lock():
        for one, cells in zip(segmenters, plan.by_model, strict=True):
            check_cells(one, cells, dataset)
        path = store.root / "plan.json"
        write_json(path, plan.to_json(read_json(path) if path.exists() else None))
        finished = sum(store.cell(c).done for c in plan.cells)
        progress.start(cells=len(plan.cells), finished=finished, images=len(dataset))
        executors: dict[int, Executor] = {}  # one a model, so that clean answers are made once
        try:
            for one, cells in zip(segmenters, plan.by_model, strict=True):
                env = environment(one.device) | ({"command": command} if command else {})
                executor = executors.setdefault(
                    id(one),
                    Executor(store=store, segmenter=one, dataset=dataset, env=env, progress=progress, batch=batch),
                )
                for cell in cells:
                    if not store.cell(cell).done:
                        executor.run(cell)
        except KeyboardInterrupt:
            progress.stop(f"Stopped. What was finished is in {store.root}; the same command goes on from there.")
            raise
        return summarise(store.root)


def check_cells(segmenter: Segmenter, cells: Sequence[Cell], dataset: Dataset) -> None:
    """Raise InputError when a protocol makes prompts that a model does not take, or an attack asks for gradients that
    it does not give."""
    for cell in {canonical(c.protocol): c for c in cells}.values():
        kinds = prompt_kinds(cell, dataset)
        if "text" in kinds and not segmenter.takes_text:
            raise InputError(
                f"{segmenter.name} ({segmenter.family}) takes no text prompt.", hint="Choose another protocol."
            )
        if kinds - {"text"} and not segmenter.takes_clicks:
            raise InputError(f"{segmenter.name} ({segmenter.family}) takes texts only.", hint="Type: --preset text")
        if any("mask" in kind for kind in kinds):
            _ = segmenter.mask_size  # raises for a family that takes none
    for cell in cells:
        if cell.probe["kind"] != "attack" or segmenter.differentiable:
            continue
        if registry.get("attack", cell.probe["name"]).meta.get("kind") in FOLLOW_GRADIENTS:
            raise blind(cell.probe["name"], segmenter)
