"""The records of one cell as columns: read one by one, so that a cell takes the memory of its numbers alone."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redsam.bench.spec import Cell, JsonDict
from redsam.bench.statistics import Array
from redsam.bench.store import scan

GROUND_TRUTH, CLEAN_PREDICTION = "ground truth", "clean prediction"
REFERENCES = (GROUND_TRUTH, CLEAN_PREDICTION)
COLUMNS = tuple(f"{m}_{pair}" for m in ("iou", "biou") for pair in ("clean_gt", "adv_gt", "adv_clean"))
# Numbers of an adversarial image: the record's own, or those of its prompts where each has an image of its own.
LOOKS = ("psnr", "ssim", "linf", "l2", "l0", "shift", "steps", "queries")
WHOLE = ("l0", "steps", "queries")
IMAGE = ("psnr", "seconds", "peak_mb")  # of a record, whatever its prompts have


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """Prompts of the measured images of a cell.

    samples: names of the measured images, sorted. owner: for each prompt the index of its image in them. kinds: its
    prompt kind. columns: its numbers, NaN where not measured. psnr: of each image, NaN where there is none. spent: what
    the images cost and how they look, see `costs`. failures: one entry for each image that was not measured; failed and
    skipped count them. gone: kinds of the prompts that left their (measured) image when a corruption moved its pixels.
    """

    cell: Cell
    samples: tuple[str, ...]
    owner: NDArray[np.int64]
    kinds: NDArray[np.str_]
    columns: dict[str, Array]
    psnr: Array
    spent: Mapping[str, Any]
    failures: tuple[JsonDict, ...]
    failed: int
    skipped: int
    gone: tuple[str, ...] = ()

    def where(self, keep: NDArray[np.bool_]) -> Table:
        """Only these prompts; the images stay, so that resamples of all kinds draw from the same images."""
        columns = {name: values[keep] for name, values in self.columns.items()}
        return replace(self, owner=self.owner[keep], kinds=self.kinds[keep], columns=columns)

    def known(self, reference: str) -> bool:
        """Whether every prompt has been measured against this reference."""
        values = self.column("iou", "adv", reference)
        return len(values) > 0 and bool(np.isfinite(values).all())

    def column(self, measure: str, when: str, reference: str) -> Array:
        """`iou` or `biou`, `clean` or `adv`, against a reference; the clean prediction agrees with itself."""
        if reference == CLEAN_PREDICTION and when == "clean":
            return np.ones(len(self.owner))
        return self.columns[f"{measure}_{when}_{'gt' if reference == GROUND_TRUTH else 'clean'}"]

    def costs(self) -> JsonDict:
        """What the images of the cell cost and how they look; means over adversarial images, maxima where the name says
        so. mse: of the values in [0, 1]. steps_mean, queries_mean: None where not counted."""
        return dict(self.spent)


def table(cell: Cell, records: Iterable[JsonDict]) -> Table:
    """Records of one cell to columns; of several records of one sample the last counts."""
    made = _Columns()
    for record in records:
        made.add(record)
    return made.table(cell)


def read_table(cell: Cell, path: Path) -> Table:
    """The same of a samples.jsonl. Raises InputError for a broken one."""
    return table(cell, scan(path))


class _Columns:
    """Numbers as they come, each with the number of its record; put in the order of the samples' names at the end."""

    def __init__(self) -> None:
        self.place: dict[str, int] = {}  # sample -> number of its last record
        self.count = 0
        self.good: set[int] = set()
        self.rest: dict[int, JsonDict] = {}
        self.gone: list[tuple[int, str]] = []
        self.kinds: dict[str, int] = {}
        self.kind_of = array("H")
        self.prompts, self.looks, self.images = _Rows(COLUMNS), _Rows((*LOOKS, "mse")), _Rows(IMAGE)

    def add(self, record: JsonDict) -> None:
        number, self.count = self.count, self.count + 1
        earlier = self.place.get(record["sample"])
        if earlier is not None:
            self.good.discard(earlier)
            self.rest.pop(earlier, None)
        self.place[record["sample"]] = number
        if record["status"] != "ok":
            self.rest[number] = {key: record[key] for key in ("cell", "sample", "status", "reason")}
            return
        self.good.add(number)
        for p in record["prompts"]:
            if p.get("gone"):
                self.gone.append((number, p["kind"]))
                continue
            self.kind_of.append(self.kinds.setdefault(p["kind"], len(self.kinds)))
            self.prompts.add(number, [p[name] for name in COLUMNS])
        self.images.add(number, [record.get(name) for name in IMAGE])
        values = 3 * record["height"] * record["width"]
        for one in [p for p in record["prompts"] if "linf" in p] or [record]:
            self.looks.add(number, [*[one.get(name) for name in LOOKS], one["l2"] ** 2 / values])

    def table(self, cell: Cell) -> Table:
        names = sorted(self.place)
        rank = np.full(self.count + 1, -1, dtype=np.int64)  # place of a record among the measured ones
        samples = [name for name in names if self.place[name] in self.good]
        rank[[self.place[name] for name in samples]] = np.arange(len(samples))
        owner, order, columns = self.prompts.sorted(rank)
        _, _, images = self.images.sorted(rank)
        _, _, looks = self.looks.sorted(rank)
        failures = [self.rest[self.place[name]] for name in names if self.place[name] in self.rest]
        gone = sorted((int(rank[number]), i, kind) for i, (number, kind) in enumerate(self.gone) if rank[number] >= 0)
        return Table(
            cell=cell,
            samples=tuple(samples),
            owner=owner,
            kinds=np.array(list(self.kinds), dtype=np.str_)[np.frombuffer(self.kind_of, dtype=np.uint16)[order]],
            columns=columns,
            psnr=images["psnr"],  # one row an image
            spent=_spent({name: _known(name, values) for name, values in (images | looks).items()}),
            failures=tuple(failures),
            failed=sum(r["status"] == "failed" for r in failures),
            skipped=sum(r["status"] == "skipped" for r in failures),
            gone=tuple(kind for *_, kind in gone),
        )


class _Rows:
    """Rows of numbers, each owned by a record; NaN for what is not there."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.owners, self.values = array("q"), array("d")

    def add(self, number: int, row: list[Any]) -> None:
        """One row, None where there is no number."""
        self.owners.append(number)
        self.values.extend([np.nan if v is None else v for v in row] if None in row else row)

    def sorted(self, rank: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], dict[str, Array]]:
        """Rows of measured images in the order of the images: whose they are, which they were, and their columns."""
        places = rank[np.frombuffer(self.owners, dtype=np.int64)]
        kept = np.flatnonzero(places >= 0)
        order = kept[np.argsort(places[kept], kind="stable")]
        table = np.frombuffer(self.values, dtype=np.float64).reshape(-1, len(self.names))[order]
        return places[order], order, {name: table[:, i].copy() for i, name in enumerate(self.names)}


def _known(name: str, values: Array) -> Sequence[float]:
    numbers: list[float] = values[~np.isnan(values)].tolist()
    return [int(n) for n in numbers] if name in WHOLE else numbers


def _spent(looks: Mapping[str, Sequence[float]]) -> JsonDict:
    return {
        "psnr": _mean(looks["psnr"]),
        "ssim": _mean(looks["ssim"]),
        "linf_max": max(looks["linf"], default=None),
        "l2_max": max(looks["l2"], default=None),
        "l0_max": max(looks["l0"], default=None),
        "shift_max": max(looks["shift"], default=None),
        "l0_mean": _mean(looks["l0"]),
        "mse": _mean(looks["mse"]),
        "steps_mean": _mean(looks["steps"]),
        "queries_mean": _mean(looks["queries"]),
        "seconds": sum(looks["seconds"]),
        "peak_mb": max(looks["peak_mb"], default=None),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
