"""`redsam list KIND`: what is there, from the registry, with paper and year."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from redsam.cli.console import out
from redsam.cli.options import Json

Row = dict[str, Any]
KINDS = "models, attacks, corruptions, triggers, targets, objectives, protocols, studies, readers, metrics or presets."
PLURALS = {"studies": "study"}


def command(
    kind: Annotated[str, typer.Argument(help=KINDS)],
    as_json: Json = False,
) -> None:
    """List what can be named. protocols say how images are prompted, studies how papers evaluate."""
    rows = rows_of(kind)
    if as_json:
        typer.echo(json.dumps(rows, indent=1, default=str, ensure_ascii=False))
        return
    from rich import box
    from rich.table import Table

    columns = [c for c in ("name", "kind", "group", "paper", "year", "summary") if any(row.get(c) for row in rows)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("name", "year"))
    for row in rows:
        table.add_row(*(str(row.get(c) or "") for c in columns))
    out().print(table)


def rows_of(kind: str) -> list[Row]:
    """Rows of a kind given in the singular or plural. Raises UnknownName."""
    from redsam import registry

    special: Mapping[str, Callable[[], list[Row]]] = {"model": _models, "preset": _presets}
    wanted = PLURALS.get(kind.lower(), kind.lower().removesuffix("s"))
    if wanted in special:
        return special[wanted]()
    known = [*registry.kinds(), *special]
    if wanted not in known:
        raise registry.unknown("kind", kind, sorted({plural(k) for k in known}))
    return [_row(entry) for entry in registry.entries(wanted)]


def plural(kind: str) -> str:
    """`attacks`, `studies`."""
    return next((many for many, one in PLURALS.items() if one == kind), f"{kind}s")


def _row(entry: Any) -> Row:
    return {"name": entry.name, "summary": entry.summary, **entry.meta}


def _models() -> list[Row]:
    """The lab models first (they need no download), then the families that `load` understands."""
    from redsam import registry
    from redsam.models import lab_names

    lab = [{"name": name, "kind": "lab model", "summary": "travels with the package"} for name in lab_names()]
    return lab + [{**_row(entry), "kind": "family"} for entry in registry.entries("model")]


def _presets() -> list[Row]:
    from redsam.bench import PRESETS

    return [{"name": name, "summary": preset.summary} for name, preset in PRESETS.items()]
