"""audit: plan, run every unfinished cell, summarise. Interrupted at any moment and called again, it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from redsam.bench.environment import environment
from redsam.bench.executor import Executor
from redsam.bench.files import read_json, write_json
from redsam.bench.objects import Objects, find_objects, prompt_kinds
from redsam.bench.plan import Plan, make_plan, with_limit
from redsam.bench.presets import QUICK, Preset
from redsam.bench.presets import preset as preset_named
from redsam.bench.progress import Progress, Silent
from redsam.bench.spec import canonical
from redsam.bench.store import RunStore
from redsam.bench.summary import Summary, summarise
from redsam.data import Dataset
from redsam.errors import InputError
from redsam.models.base import Segmenter
from redsam.models.values import Select


def audit(
    segmenter: Segmenter | Sequence[Segmenter],
    dataset: Dataset,
    *,
    out: Path | str,
    preset: str | Preset = QUICK,
    limit: int | None = None,
    objects: Objects | None = None,
    select: Select = "iou",
    seed: int = 0,
    batch: int = 1,
    progress: Progress | None = None,
    command: str | None = None,
) -> Summary:
    """Run a preset on one or more models and a dataset, into the folder `out`; returns what summary.json holds.

    limit: at most so many images instead of the preset's number, evenly spaced over the set; 0 takes all. objects: what
    to prompt, found by looking at the data when None: the annotated masks, or where there are none the model's own
    automatic ones. batch: images of one size attacked together, which changes speed and memory, not results.
    command: what somebody typed to get here, for the last page of the report.
    A folder that holds earlier cells keeps them: finished cells do not run again, another model or preset adds its own.
    Images that fail are records with a reason, never an exception. Raises InputError for a plan that cannot run or a
    folder that cannot be written.
    """
    progress = progress or Silent()
    chosen = with_limit(preset_named(preset) if isinstance(preset, str) else preset, limit)
    segmenters = [segmenter] if isinstance(segmenter, Segmenter) else list(segmenter)
    dataset = dataset.limit(chosen.limit)
    store = RunStore(out)
    with store.lock():
        plan = make_plan(
            segmenters, dataset, chosen, objects=objects or find_objects(dataset), select=select, seed=seed
        )
        check_prompts(segmenters, dataset, plan)
        path = store.root / "plan.json"
        write_json(path, plan.to_json(read_json(path) if path.exists() else None))
        finished = sum(store.cell(c).done for c in plan.cells)
        progress.start(cells=len(plan.cells), finished=finished, images=len(dataset))
        try:
            _run(store, segmenters, dataset, plan, progress, batch, command)
        except KeyboardInterrupt:
            progress.stop(f"Stopped. What was finished is in {store.root}; the same command goes on from there.")
            raise
        return summarise(store.root)


def _run(
    store: RunStore,
    segmenters: Sequence[Segmenter],
    dataset: Dataset,
    plan: Plan,
    progress: Progress,
    batch: int,
    command: str | None,
) -> None:
    for one, cells in zip(segmenters, plan.by_model, strict=True):
        executor = Executor(
            store=store,
            segmenter=one,
            dataset=dataset,
            env=environment(one.device) | ({"command": command} if command else {}),
            progress=progress,
            batch=batch,
        )
        for cell in cells:
            if not store.cell(cell).done:
                executor.run(cell)


def check_prompts(segmenters: Sequence[Segmenter], dataset: Dataset, plan: Plan) -> None:
    """Raise InputError when a protocol makes prompts that a model does not take, before hours were spent."""
    for cell in {canonical(c.protocol): c for c in plan.cells}.values():
        kinds = prompt_kinds(cell, dataset)
        for one in segmenters:
            if any("text" in kind for kind in kinds):
                raise InputError(f"{one.name} ({one.family}) takes no text prompt.", hint="Choose another protocol.")
            if any("mask" in kind for kind in kinds):
                _ = one.mask_size  # raises for a family that takes none
