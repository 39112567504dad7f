"""`redsam merge RUN RUN --out DIR`: runs made on several machines as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from redsam.cli import options


def command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="The --out folders of audits or benches.")],
    folder: Annotated[Path, options.out_option("Where they are joined; may hold some of it already.")],
) -> None:
    """Join runs; refuse them, before anything is written, where they contradict each other.

    The runs stay as they are. Stopped and typed again, it goes on.
    """
    from redsam.bench.merge import merge

    found = merge(runs, out=folder)
    typer.echo(f"{found.records} records ({found.added} new), {found.done} of {found.cells} cells finished")
    typer.echo(f"For the report type: redsam report {found.out}")
