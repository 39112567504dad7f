"""What studies of natural changes share: corruption cells with their records as columns, and rows made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from redsam.bench import table as columns
from redsam.bench.audit import audit
from redsam.bench.contrasts import Gap
from redsam.bench.objects import Objects, find_objects
from redsam.bench.plan import CLEAN, changes_of, make_plan
from redsam.bench.presets import Asked, Change, Preset
from redsam.bench.spec import JsonDict, canonical
from redsam.bench.store import RunStore
from redsam.data import Dataset
from redsam.models.values import Select
from redsam.studies.base import Request
from redsam.studies.tables import measured

UNCHANGED = "clean"


@dataclass(frozen=True, kw_only=True, eq=False)
class Field:
    """One cell. change: label of the corruption, "clean" for none. data: the cell's records as columns. rows: its rows
    of the summary."""

    change: str
    severity: int | None
    victim: str
    protocol: str
    data: columns.Table
    rows: tuple[JsonDict, ...]

    def row(self, references: Sequence[str], kind: str | None = None) -> JsonDict:
        """The row against the first of `references` that there is, over prompts of one kind or whatever there are."""
        mine = [r for r in self.rows if kind in (None, r["prompt_kind"])]
        return next(r for reference in (*references, mine[0]["reference"]) for r in mine if r["reference"] == reference)

    def line(self, references: Sequence[str], **keys: Any) -> JsonDict:
        """That row as one of a study's table, with what the change cost and how far it went."""
        row = self.row(references)
        loss = {f"loss{end}": row[f"delta{end}"] for end in ("", "_lo", "_hi")}
        return measured(row, victim=self.victim, **keys) | loss | {"psnr": row["psnr"], "n_gone": row["n_gone"]}


def ask(
    asked: Request,
    name: str,
    changes: Sequence[Change],
    protocols: Sequence[Asked],
    *,
    data: Dataset | None = None,
    objects: Objects | None = None,
    select: Select = "iou",
) -> list[Field]:
    """Every change, and none, on every model of a request; cell by cell, in the order of the plan."""
    used = asked.dataset if data is None else data
    preset = Preset(name=name, summary=name, protocols=tuple(protocols), changes=tuple(changes))
    found = objects or find_objects(used)
    models = list(asked.everyone)
    summary = audit(
        models, used, out=asked.out, preset=preset, objects=found, select=select, seed=asked.seed, batch=asked.batch,
        progress=asked.progress, command=asked.command,
    )  # fmt: skip
    plan = make_plan(models, used, preset, objects=found, select=select, seed=asked.seed)
    labels = {canonical(dict(CLEAN)): UNCHANGED}
    labels |= {
        canonical(probe): change.label or change.corruption for change in changes for probe in changes_of(change)
    }
    store = RunStore(asked.out)
    return [
        Field(
            change=labels[canonical(dict(cell.probe))],
            severity=cell.severity,
            victim=cell.who,
            protocol=cell.protocol["name"],
            data=columns.read_table(cell, store.cell(cell).samples),
            rows=tuple(r for r in summary.cells if r["cell"] == cell.id),
        )
        for cell in plan.cells
    ]


def by_question(fields: Sequence[Field]) -> Iterator[tuple[str, str, dict[tuple[str, int | None], Field]]]:
    """Model, protocol, and the fields of both by change and severity."""
    groups: dict[tuple[str, str], dict[tuple[str, int | None], Field]] = {}
    for one in fields:
        groups.setdefault((one.victim, one.protocol), {})[one.change, one.severity] = one
    for (victim, protocol), group in groups.items():
        yield victim, protocol, group


def told(gap: Gap | None, name: str = "difference") -> JsonDict:
    """A difference with its ends and its n as fields of a row; None where there is none."""
    if gap is None:
        return dict.fromkeys((name, f"{name}_lo", f"{name}_hi")) | {"n_images": 0}
    return {name: gap.found.value, f"{name}_lo": gap.found.lo, f"{name}_hi": gap.found.hi, "n_images": gap.images}
