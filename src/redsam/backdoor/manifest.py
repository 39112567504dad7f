"""backdoor.json: what was planted into the model beside it, so that measuring needs no second telling."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redsam.backdoor.poison import Poison
from redsam.storage import read_document

NAME, SCHEMA = "backdoor.json", 1


def write(folder: Path, told: Mapping[str, Any]) -> None:
    """Write it, whole or not at all."""
    part = folder / f".{NAME}.part"
    part.write_text(json.dumps({"schema": SCHEMA, **told}, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(folder / NAME)


def read(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder, None without one. Raises InputError for a broken one."""
    return read_document(folder / NAME, schema=SCHEMA, hint="Plant again with this version of redsam.")


def poison_of(model: str | Path) -> Poison | None:
    """The poison that a planted folder names, purifiers behind a `|` or not; None for any other model."""
    folder = Path(str(model).partition("|")[0].strip())
    told = read(folder) if folder.is_dir() else None
    return None if told is None else Poison.from_dict(told["poison"])
