"""`redsam leaderboard RUN...`: several audits of one protocol on one page, from their summary.json alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from redsam.cli import options


def command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of audits, or summary.json files.")],
    folder: Annotated[Path, options.out_option("Where index.html and entries/ go.")] = Path("redsam-leaderboard"),
) -> None:
    """Rank audited models: a sortable page and one JSON file an entry.

    Ranks come with intervals, ties are marked, and runs of different protocols are refused.
    """
    from redsam.leaderboard import leaderboard

    typer.echo(str(leaderboard(runs, options.folder(folder))))
