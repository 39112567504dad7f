"""The progress bar of every command: on stderr, gone when it is done, silent without a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn


def progress(console: Console, *columns: ProgressColumn) -> Progress:
    """What is done, a bar, `columns` (default: so many of so many), the time."""
    told = columns or (MofNCompleteColumn(),)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        *told,
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
