"""audit: plan, run every unfinished cell, summarise. Interrupted at any moment and called again, it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from redsam.bench.flight import Batching
from redsam.bench.objects import Objects, find_objects
from redsam.bench.plan import make_plan, with_limit
from redsam.bench.presets import QUICK, Preset
from redsam.bench.presets import preset as preset_named
from redsam.bench.progress import Progress, Silent
from redsam.bench.run import carry_out
from redsam.bench.summary import Summary
from redsam.data import Dataset
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
    joint: bool | None = None,
    seed: int = 0,
    batch: Batching = 1,
    progress: Progress | None = None,
    command: str | None = None,
) -> Summary:
    """Run a preset on one or more models and a dataset, into the folder `out`; returns what summary.json holds.

    limit: at most so many images instead of the preset's number, evenly spaced over the set; 0 takes all. objects: what
    to prompt, found by looking at the data when None: the annotated masks, or where there are none the model's own
    automatic ones. joint: one adversarial image for all prompts of an image, or, False, one for each; None leaves it to
    the preset. batch: images of one size attacked together, or "auto" for as many as memory holds (`flight.batch_of`),
    which changes speed and memory, and results by float noise only.
    command: what somebody typed to get here, for the last page of the report.
    A folder that holds earlier cells keeps them: finished cells do not run again, another model or preset adds its own.
    Images that fail are records with a reason, never an exception. Raises InputError for a plan that cannot run or a
    folder that cannot be written.
    """
    named = preset_named(preset) if isinstance(preset, str) else preset
    chosen = with_limit(named if joint is None else replace(named, joint=joint), limit)
    segmenters = [segmenter] if isinstance(segmenter, Segmenter) else list(segmenter)
    dataset = dataset.limit(chosen.limit)
    plan = make_plan(segmenters, dataset, chosen, objects=objects or find_objects(dataset), select=select, seed=seed)
    return carry_out(out, segmenters, dataset, plan, progress=progress or Silent(), batch=batch, command=command)
