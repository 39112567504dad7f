"""merge: runs made on several machines become one folder of records, or one line that says what contradicts what.

Everything is checked before anything is written: the schema, that one name of a model means one set of weights, and,
where several runs have a cell, that they agree on every image (times aside). Then cell by cell the pictures come first
(as hard links where the disk allows, they are never changed in place), the records after them, the mark of a finished
cell last; killed at any moment and typed again, it goes on. What the target has already is one more run.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from redsam.bench.evaluate import comparable
from redsam.bench.files import read_json, storing, write_bytes, write_json
from redsam.bench.spec import SCHEMA, JsonDict, canonical, digest
from redsam.bench.store import CellStore, RunStore, scan, scan_lines
from redsam.errors import InputError

BLOCK = 4096  # records between two syncs; the source has them all


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What is in the target now: cells, finished cells, records; added: records that were not there before."""

    out: Path
    cells: int
    done: int
    records: int
    added: int


@dataclass(kw_only=True, eq=False)
class _Run:
    """One run to be joined. renamed: clean images whose name means another picture in the target."""

    root: Path
    cells: dict[str, CellStore]
    plan: JsonDict
    renamed: dict[str, str] = field(default_factory=dict)


def merge(runs: Sequence[Path | str], *, out: Path | str) -> Merged:
    """Join `runs` into the folder `out`, which may hold some of it already. The runs stay as they are.

    Raises InputError for a folder without records, other schemas and contradictions, before anything is written.
    """
    target = RunStore(out)
    sources = [_read(Path(run).expanduser()) for run in runs]
    sources = [run for run in sources if run.root.resolve() != target.root.resolve()]
    if not sources:
        raise InputError("There is nothing to merge.", hint="Type: redsam merge RUN RUN --out DIR")
    with target.lock():
        known = [_read(target.root)] if any((target.root / "records").glob("*/spec.json")) else []
        _agree([*known, *sources])
        for run in sources:
            _clean_images(run, target.root)
        added = 0
        cells: dict[str, list[tuple[_Run, CellStore]]] = {}
        for run in sources:
            for name, store in run.cells.items():
                cells.setdefault(name, []).append((run, store))
        total = 0
        lists = _sample_lists([*known, *sources])
        for held in cells.values():
            new, all_of_it = _fill(target, held, lists)
            added, total = added + new, total + all_of_it
        _plan(target.root, [*known, *sources])
        everything = target.cells()
        total += sum(1 for c in everything if c.cell.id not in cells for _ in scan(c.samples))
        return Merged(
            out=target.root, cells=len(everything), done=sum(c.done for c in everything), records=total, added=added
        )


def _read(root: Path) -> _Run:
    """The cells of a run. Raises InputError."""
    cells = {store.cell.id: store for store in RunStore(root).cells()}
    for spec in (root / "records").glob("*/spec.json"):
        if spec.parent.name not in cells:
            raise InputError(
                f"{spec.parent} does not hold the cell that its name says; it was written by another version.",
                hint="Merge runs of one version of redsam.",
            )
    path = root / "plan.json"
    plan = read_json(path) if path.exists() else {}
    if plan and plan.get("schema") != SCHEMA:
        raise InputError(f"{path} has schema {plan.get('schema')}, this redsam writes {SCHEMA}.", hint="Run it again.")
    return _Run(root=root, cells=cells, plan=plan)


def _agree(runs: Sequence[_Run]) -> None:
    """Raise InputError where two runs contradict each other."""
    weights: dict[str, tuple[str, Path]] = {}
    held: dict[str, list[_Run]] = {}
    for run in runs:
        for name, store in run.cells.items():
            held.setdefault(name, []).append(run)
            model, mark = str(store.cell.model["name"]), str(store.cell.model.get("fingerprint"))
            first = weights.setdefault(model, (mark, run.root))
            if first[0] != mark:
                raise InputError(
                    f"'{model}' has other weights in {run.root} ({mark}) than in {first[1]} ({first[0]}).",
                    hint="Rename one of the models and run it again.",
                )
    for name, several in held.items():
        if len(several) < 2:
            continue
        seen: dict[str, tuple[bytes, Path]] = {}
        for run in several:
            for sample, said in _marks(run.cells[name]).items():
                before = seen.setdefault(sample, (said, run.root))
                if before[0] != said:
                    raise InputError(
                        f"{run.root} and {before[1]} disagree on image '{sample}' of cell {name}.",
                        hint=f"Delete records/{name} in the run that is wrong.",
                    )


def _marks(store: CellStore) -> dict[str, bytes]:
    """Of each sample, what its last record says, as 16 bytes."""
    return {
        r["sample"]: hashlib.blake2b(canonical(_said(r)).encode(), digest_size=16).digest() for r, _ in _records(store)
    }


def _said(record: JsonDict) -> JsonDict:
    """A record without times and without the name of its clean image, which other runs in a folder decide."""
    return {key: value for key, value in comparable(record).items() if key != "clean_image"}


def _records(store: CellStore) -> Iterator[tuple[JsonDict, bytes]]:
    """The records of a cell with their lines. Raises InputError for one of another schema or another cell."""
    for record, line in scan_lines(store.samples):
        if record.get("schema", SCHEMA) != SCHEMA or record.get("cell", store.cell.id) != store.cell.id:
            raise InputError(
                f"{store.samples} holds a record of schema {record.get('schema')}, cell {record.get('cell')}.",
                hint="Delete that cell's folder and run it again.",
            )
        yield record, line


def _clean_images(run: _Run, root: Path) -> None:
    """Link the clean images; one whose name is taken by another picture gets a name of its content, too."""
    for path in sorted((run.root / "images").glob("*.png")):
        name, there = path.name, root / "images" / path.name
        if there.exists() and not _same(path, there):
            content = path.read_bytes()
            name = f"{path.stem}-{hashlib.sha256(content).hexdigest()[:8]}.png"
            run.renamed[f"images/{path.name}"] = f"images/{name}"
        _link(path, root / "images" / name)


def _fill(
    target: RunStore, held: Sequence[tuple[_Run, CellStore]], lists: Mapping[str, Sequence[str]]
) -> tuple[int, int]:
    """Bring one cell into the target: (records added, records in all)."""
    cell = held[0][1].cell
    store = target.cell(cell)
    if store.done:
        return 0, sum(1 for _ in scan(store.samples))
    env = held[0][1].folder / "env.json"
    names = set(store.open(read_json(env) if env.exists() else {}))
    before = len(names)
    try:
        for run, source in held:
            for path in sorted((source.folder / "images").glob("*.png")):
                _link(path, store.folder / "images" / path.name)
            if cell.natural:
                _changed(run, source, target.root)
            there, lines = frozenset(names), []
            for record, line in _records(source):
                if record["sample"] in there:
                    continue
                names.add(record["sample"])
                if record.get("clean_image") in run.renamed:
                    record["clean_image"] = run.renamed[record["clean_image"]]
                    line = (json.dumps(record, separators=(",", ":"), ensure_ascii=False) + "\n").encode()
                lines.append(line)
                if len(lines) == BLOCK:
                    store.extend(lines)
                    lines = []
            store.extend(lines)
        whole = lists.get(str(cell.data.get("ids_hash")))
        if any(source.done for _, source in held) or (whole is not None and names.issuperset(whole)):
            store.finish()
    finally:
        store.close()
    return len(names) - before, len(names)


def _changed(run: _Run, source: CellStore, root: Path) -> None:
    """Link the pictures of a corruption cell, which the cells of a run share."""
    folders = {Path(r["image"]).parent for r, _ in _records(source) if r.get("image")}
    for folder in sorted(folders):
        for path in sorted((run.root / folder).glob("*.png")):
            there = root / folder / path.name
            if there.exists() and not _same(path, there):
                raise InputError(
                    f"{path} and {there} show different pictures.", hint="Delete the run that is wrong, or its cells."
                )
            _link(path, there)


def _same(a: Path, b: Path) -> bool:
    """Whether two PNGs hold the same picture; other zlibs write other bytes for it."""
    if os.path.samefile(a, b) or a.read_bytes() == b.read_bytes():
        return True
    with Image.open(a) as first, Image.open(b) as second:
        return first.size == second.size and bool(np.array_equal(np.asarray(first), np.asarray(second)))


def _link(path: Path, there: Path) -> None:
    """A file in two folders; whole or not at all."""
    if there.exists():
        return
    with storing(there):
        there.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, there)
        except OSError:  # another disk, or a file system without links
            write_bytes(there, path.read_bytes())


def _sample_lists(runs: Sequence[_Run]) -> dict[str, Sequence[str]]:
    """The names of a data slice by their hash, as the plans of the runs have them."""
    found: dict[str, Sequence[str]] = {}
    for run in runs:
        names: Any = run.plan.get("samples") or []
        found[digest(list(names))] = names
    return found


def _plan(root: Path, runs: Sequence[_Run]) -> None:
    """plan.json of everything, cells in the order of the runs."""
    plans = [run.plan for run in runs if run.plan]
    cells = {entry["cell"]: entry for plan in plans for entry in plan.get("cells", [])}
    samples = list(dict.fromkeys(name for plan in plans for name in plan.get("samples", [])))
    name = str(plans[0].get("preset", "merged")) if plans else "merged"
    write_json(
        root / "plan.json", {"schema": SCHEMA, "preset": name, "samples": samples, "cells": list(cells.values())}
    )
