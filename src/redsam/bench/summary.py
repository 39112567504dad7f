"""Aggregation: summary.json is a pure function of the records on disk. No model, no data set.

Cells are read one by one, those that are compared with each other together; no more than these are in memory at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redsam.bench.contrasts import contrasts, same_but_prompts
from redsam.bench.files import read_json, write_json
from redsam.bench.spec import SCHEMA, Cell, JsonDict
from redsam.bench.statistics import (
    Array,
    Draws,
    Interval,
    difference_interval,
    image_sums,
    mean_interval,
    prepare,
    resamples,
)
from redsam.bench.store import CellStore, RunStore
from redsam.bench.table import GROUND_TRUTH, REFERENCES, Table, read_table

ALL_KINDS = "all"


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What an audit found.

    cells: one row for each cell, prompt kind and reference. model: with its defence (`lab-b+jpeg`), which `defense`
    names, None for a model by itself. probe: what was done, "none", "attack", "replay" or "corruption"; attack: its
    name. question: the cell without model and defence (`Cell.question`). severity: of a corruption, else None; eps:
    None for a corruption, which has no budget. n_gone: prompts that left their image and are in no mean. source: the
    model that the images were crafted on, None for the row's own; attacker_protocol: the prompts they were crafted
    with; sd_clean, sd_adv: standard deviation of the IoU over prompts. contrasts: paired differences between cells.
    failures: every image that was not measured, with the reason. unfinished: ids of cells that still have images to
    do.
    """

    out: Path
    cells: tuple[JsonDict, ...]
    contrasts: tuple[JsonDict, ...]
    failures: tuple[JsonDict, ...]
    unfinished: tuple[str, ...]
    env: Mapping[str, Any]

    def to_json(self) -> JsonDict:
        """summary.json."""
        return {
            "schema": SCHEMA,
            "cells": list(self.cells),
            "contrasts": list(self.contrasts),
            "failures": list(self.failures),
            "unfinished": list(self.unfinished),
            "env": dict(self.env),
        }


def summarise(out: Path | str) -> Summary:
    """Read OUT/records, write OUT/summary.json and return it. Raises InputError where there are no records."""
    store = RunStore(out)
    cells = _in_plan_order(store)
    groups: dict[str, list[CellStore]] = {}
    for one in cells:
        groups.setdefault(same_but_prompts(one.cell), []).append(one)
    rows: dict[str, list[JsonDict]] = {}
    failures: dict[str, tuple[JsonDict, ...]] = {}
    between: list[JsonDict] = []
    for group in groups.values():
        tables = [read_table(c.cell, c.samples) for c in group]
        for c, t in zip(group, tables, strict=True):
            rows[c.cell.id], failures[c.cell.id] = _rows(c, t), t.failures
        between += contrasts(tables)
    summary = Summary(
        out=store.root,
        cells=tuple(row for c in cells for row in rows[c.cell.id]),
        contrasts=tuple(between),
        failures=tuple(f for c in cells for f in failures[c.cell.id]),
        unfinished=tuple(c.cell.id for c in cells if not c.done),
        env=_env(cells),
    )
    write_json(store.root / "summary.json", summary.to_json())
    return summary


def latest(records: Iterable[JsonDict]) -> list[JsonDict]:
    """One record for each sample, the last written, in the order of the samples' names."""
    by_name = {r["sample"]: r for r in records}
    return [by_name[name] for name in sorted(by_name)]


def _in_plan_order(store: RunStore) -> list[CellStore]:
    cells = {c.cell.id: c for c in store.cells()}
    plan = store.root / "plan.json"
    order = [entry["cell"] for entry in read_json(plan)["cells"]] if plan.exists() else []
    return [cells[i] for i in order if i in cells] + [c for i, c in cells.items() if i not in set(order)]


def _env(cells: Sequence[CellStore]) -> Mapping[str, Any]:
    """The environment of the cell begun last."""
    paths = [p for c in cells if (p := c.folder / "env.json").exists()]
    newest: Mapping[str, Any] = read_json(max(paths, key=os.path.getmtime)) if paths else {}
    return newest


def _rows(store: CellStore, data: Table) -> list[JsonDict]:
    """Rows of one cell: one for each prompt kind, and one over all of them where there are several."""
    kinds = sorted(set(data.kinds.tolist()))
    names = [*kinds, ALL_KINDS] if len(kinds) > 1 else kinds or [None]
    weights = resamples(len(data.samples), seed=int(data.cell.id, 16)) if len(data.owner) else None
    rows = []
    for kind in names:
        chosen = data if kind in (ALL_KINDS, None) else data.where(data.kinds == kind)
        known = [ref for ref in REFERENCES if chosen.known(ref)]
        if data.cell.clean and GROUND_TRUTH in known:
            known = [GROUND_TRUTH]  # against itself a clean prediction is perfect: a row that says nothing
        rows += [_row(store, chosen, kind, ref, weights) for ref in known or REFERENCES[-1:]]
    return rows


def _row(store: CellStore, data: Table, kind: str | None, reference: str, weights: Array | Draws | None) -> JsonDict:
    cell = data.cell
    clean, adv = (data.column("iou", when, reference) for when in ("clean", "adv"))
    row: JsonDict = {
        "cell": cell.id,
        "model": cell.who,
        "defense": cell.defense["label"] if cell.defense else None,
        "probe": cell.probe["kind"],
        "attack": cell.probe["name"],
        "args": cell.probe["args"],
        "source": cell.source,
        "attacker_protocol": _attacker(cell),
        "threat": cell.threat,
        "eps": cell.eps,
        "severity": cell.severity,
        "data": cell.data["name"],
        "protocol": cell.protocol["name"],
        "question": cell.question(),
        "prompt_kind": kind,
        "reference": reference,
        "done": store.done,
        "n_prompts": len(clean),
        "n_images": len(set(data.owner.tolist())),
        "n_failed": data.failed,
        "n_skipped": data.skipped,
        "n_gone": sum(kind in (ALL_KINDS, one) for one in data.gone),
    }
    numbers: dict[str, NDArray[Any]] = {
        "miou_clean": clean,
        "miou_adv": adv,
        "delta": clean,  # minus miou_adv
        "asr50": adv <= 0.5,
        "asr10": adv <= 0.1,
        "asr50_clean": clean <= 0.5,
        "asr10_clean": clean <= 0.1,
        "biou_clean": data.column("biou", "clean", reference),
        "biou_adv": data.column("biou", "adv", reference),
    }
    images = len(data.samples)
    counts = image_sums(np.ones(len(clean)), data.owner, images)
    sums = {name: image_sums(values, data.owner, images) for name, values in numbers.items()}
    prepare(weights, [counts, *sums.values()])
    for name in numbers:
        found = None
        if weights is not None and name == "delta":
            found = difference_interval((sums[name], counts), (sums["miou_adv"], counts), weights)
        elif weights is not None:
            found = mean_interval(sums[name], counts, weights)
        row |= _spread(name, found)
    for when, values in (("clean", clean), ("adv", adv)):
        row[f"sd_{when}"] = float(values.std()) if len(values) else None
    return row | data.costs()


def _attacker(cell: Cell) -> str | None:
    """Name of the protocol that the images were crafted with; None when no prompt had a part in them."""
    protocol = cell.probe["protocol"] if cell.replay else None if cell.threat is None else cell.protocol
    return protocol["name"] if protocol else None


def _spread(name: str, found: Interval | None) -> JsonDict:
    """A number and its ends as three fields; None where nothing was measured."""
    if found is None:
        return {name: None, f"{name}_lo": None, f"{name}_hi": None}
    return {name: found.value, f"{name}_lo": found.lo, f"{name}_hi": found.hi}
