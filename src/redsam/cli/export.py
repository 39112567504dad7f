"""`redsam export RUN --out FILE.parquet`: the records as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The --out folder of an audit or a bench.")],
    file: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Such as records.parquet.")],
    masks: Annotated[bool, typer.Option("--masks", help="With every mask, as a run-length code in JSON.")] = False,
) -> None:
    """Write the records as a Parquet table, a row for each prompt and for each image that has none."""
    from redsam.bench.export import export

    typer.echo(f"{export(run, out=file, masks=masks)} rows: {file}")
