"""The leaderboard: many runs on one page, from their summary.json alone. Runs of different protocols are refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from redsam.bench.files import write_bytes, write_json
from redsam.leaderboard.board import board, to_json
from redsam.leaderboard.entries import Entry, gather
from redsam.leaderboard.page import page
from redsam.leaderboard.ranks import Standing, standings

__all__ = ["Entry", "Standing", "leaderboard", "standings"]


def leaderboard(runs: Sequence[Path | str], out: Path | str) -> Path:
    """Write OUT/index.html and OUT/entries/NAME.json, one for each model of the runs; returns the page's path.

    runs: folders with a summary.json, or such files. Raises InputError where one cannot be ranked, or where two
    answered different questions; the line names what differs.
    """
    out = Path(out)
    entries = gather([Path(run) for run in runs])
    shown = board(entries)
    folder = out / "entries"
    files = {f"{entry.slug}.json" for entry in entries}
    for old in folder.glob("*.json") if folder.is_dir() else ():
        if old.name not in files:  # of an earlier board in the same folder: the page no longer shows it
            old.unlink()
    for entry in entries:
        write_json(folder / f"{entry.slug}.json", to_json(entry, shown))
    path = out / "index.html"
    write_bytes(path, page(entries, shown).encode())
    return path
