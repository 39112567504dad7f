"""`redsam report DIR`: the report again, from the records alone; no model is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(folder: Annotated[Path, typer.Argument(metavar="DIR", help="The --out folder of an audit.")]) -> None:
    """Write report.html and junit.xml again from the records of an audit."""
    from redsam.report import render

    typer.echo(str(render(folder)))
