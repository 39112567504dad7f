"""Results in pages that people wrote: what stands between two marker comments is printed, the rest stays."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def markers(name: str) -> tuple[str, str]:
    """The two comments around a result."""
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def fill(page: Path, name: str, text: str) -> None:
    """Put text between the markers of that name. A page without them is an error before anything is written."""
    begin, end = markers(name)
    before, begun, rest = page.read_text(encoding="utf-8").partition(begin)
    _, ended, after = rest.partition(end)
    if not begun or not ended:
        raise SystemExit(f"{page} lacks the lines {begin} and {end}: put them where the result belongs.")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def typed(command: str, args: Namespace, usual: Mapping[str, Any]) -> str:
    """The command whose result stands in a page: of the options in `usual` those that differ from it, in its order."""
    words = [command]
    for name, value in usual.items():
        mine = getattr(args, name)
        if mine != value:
            parts = mine if isinstance(mine, list) else [mine]
            told = [f"{v:g}" if isinstance(v, int | float) else Path(v).name for v in parts]
            words += [f"--{name.replace('_', '-')}", *told]
    return " ".join(words)


def earlier(out: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A finished table, to keep what its work folder no longer holds; nothing where there is none. One of other
    settings is an error: what it holds does not belong beside the new."""
    if not out.is_file():
        return {}
    told: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    theirs = told.get("settings", told)
    for name, mine in settings.items():
        if str(theirs.get(name)) != str(mine):
            raise SystemExit(f"{out} was measured with {name}={theirs.get(name)}, not {mine}: leave --keep out.")
    return told
