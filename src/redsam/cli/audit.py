"""`redsam audit MODEL`: plan, run, resume, report."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import TaskID

from redsam.cli import options
from redsam.cli.bar import progress
from redsam.cli.console import Stopped, err, out

if TYPE_CHECKING:
    from redsam.bench.spec import Cell


def command(
    model: Annotated[str, typer.Argument(help=options.MODEL_HELP)],
    data: Annotated[
        str | None,
        typer.Option("--data", "-d", metavar="DIR", help="Photographs with masks; default: bundled ones."),
    ] = None,
    reader: Annotated[str | None, typer.Option(help="How to read --data; default: found by itself.")] = None,
    preset: Annotated[str, typer.Option("--preset", "-p", help="quick, standard, full, text or weather.")] = "quick",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many images, evenly spaced.")] = None,
    folder: Annotated[Path, options.out_option("Where report and records go; the same again goes on.")] = Path(
        "redsam-audit"
    ),
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    batch_size: options.BatchSize = "1",
    memory: options.Memory = None,
    joint: Annotated[
        bool | None,
        typer.Option("--joint/--apart", help="One adversarial image for all prompts, or one for each; default: joint."),
    ] = None,
    seed: options.Seed = 0,
    defense: options.Defenses = None,
) -> None:
    """Measure where a model breaks: clean, then attacked, with intervals, pictures and one HTML report.

    Interrupted and typed again, it goes on where it was.
    """
    from redsam import bench
    from redsam.bench.flight import batch_of
    from redsam.data import open_data
    from redsam.report import render
    from redsam.report.reading import read_run
    from redsam.report.verdict import verdicts

    chosen = bench.preset(preset)
    together = batch_of(batch_size, memory)
    images = open_data(data, reader=reader)
    options.folder(folder)
    with err().status(f"loading {model}"):
        segmenter = options.load_model(model, device, dtype, defenses=defense, seed=seed)
    bar = Bar()
    try:
        bench.audit(
            segmenter,
            images,
            preset=chosen,
            out=folder,
            limit=limit,
            joint=joint,
            seed=seed,
            batch=together,
            progress=bar,
            command=_typed(
                model, data, preset, limit, joint, folder, defense or (), options.typed_batch(batch_size, memory)
            ),
        )
    except KeyboardInterrupt:
        raise Stopped(bar.farewell) from None
    finally:
        bar.close()
    page = render(folder)
    for verdict in verdicts(read_run(folder).rows):
        out().print(verdict.sentence, markup=False)
    out().print(str(page), markup=False)


def _typed(
    model: str,
    data: str | None,
    preset: str,
    limit: int | None,
    joint: bool | None,
    folder: Path,
    defenses: Sequence[str],
    batch: Sequence[str] = (),
) -> str:
    """The command that makes this run again, for the report."""
    words = ["redsam", "audit", model, *(["--data", data] if data else []), "--preset", preset]
    words += [word for one in defenses for word in ("--defense", one)]
    words += batch
    words += {True: ["--joint"], False: ["--apart"], None: []}[joint]
    return shlex.join([*words, *(["--limit", str(limit)] if limit else []), "--out", str(folder)])


class Bar:
    """A progress bar on stderr; without a terminal one line for each cell."""

    def __init__(self) -> None:
        self._console = err()
        self._bar = progress(self._console)
        self._task: TaskID | None = None
        self.farewell = "interrupted."

    def start(self, *, cells: int, finished: int, images: int, units: tuple[int, int] | None = None) -> None:
        """The plan is made."""
        if finished:
            self._console.print(f"going on: {finished} of {cells} cells were finished earlier")
        self._bar.start()
        total, done = units or (cells * images, finished * images)
        self._task = self._bar.add_task("", total=total, completed=done)

    def cell(self, cell: Cell, *, label: str, images: int, finished: int) -> None:
        """A cell begins."""
        if finished:
            self._console.print(f"going on: {finished} of {images} images of '{label}' were finished earlier")
        if self._task is not None:
            self._bar.update(self._task, description=label, advance=finished)
        if not self._console.is_terminal:
            self._console.print(label)

    def image(self, record: Mapping[str, Any]) -> None:
        """One record was written."""
        if self._task is not None:
            self._bar.advance(self._task)
        if record.get("status") == "failed":
            self._console.print(f"failed: {record['sample']}: {record['reason']}")

    def stop(self, message: str) -> None:
        """The run ended early."""
        self.farewell = message

    def close(self) -> None:
        """Take the bar away; safe to call twice."""
        self._bar.stop()
