"""`redsam report DIR`: the report again, from the records alone; no model and no data set is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(folder: Annotated[Path, typer.Argument(metavar="DIR", help="The --out folder of an audit.")]) -> None:
    """Write summary.json, report.html and junit.xml again from the records of an audit."""
    from redsam.bench import summarise
    from redsam.report import render

    summarise(folder)
    typer.echo(str(render(folder)))
