"""What the commands of `redsam backdoor` share: options, trigger and target as text, a progress bar."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import TaskID

from redsam.cli import options
from redsam.cli.bar import progress
from redsam.cli.console import err
from redsam.errors import InputError

if TYPE_CHECKING:
    from redsam.backdoor import Poison

Data = Annotated[
    str | None, typer.Option("--data", "-d", metavar="DIR", help="Photographs with masks; default: bundled ones.")
]
Reader = Annotated[str | None, typer.Option(help="How to read --data; default: found by itself.")]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many pictures, evenly spaced.")]
Trigger = Annotated[
    str | None,
    typer.Option("--trigger", metavar="NAME", help="See: redsam list triggers. With options: badnet:ratio=0.2"),
]
Target = Annotated[
    str | None, typer.Option("--target", metavar="NAME", help="The mask wanted. See: redsam list targets")
]
Planted = Annotated[str, typer.Argument(metavar="MODEL", help="A planted folder, or any model.")]
Out = Annotated[Path, options.out_option("Where numbers, pictures and the page go.")]
FOLDER = Path("redsam-backdoor")


def planted(model: str, trigger: str | None, target: str | None) -> Poison:
    """The poison told, or the one that the model's folder names. Raises InputError without either."""
    from redsam.backdoor import manifest

    if trigger is not None:
        return poison_of(trigger, target or "trigger-area")
    named = manifest.poison_of(model)
    if named is None:
        raise InputError(
            f"'{model}' names no backdoor of its own.", hint="Type: --trigger badnet --target trigger-area"
        )
    if target is not None:
        raise InputError("--target goes with --trigger.", hint="Type both, or neither.")
    return named


def poison_of(trigger: str, target: str, *, rate: float = 0.1, seed: int = 0) -> Poison:
    from redsam.backdoor import Poison

    return Poison(trigger=spec("trigger", trigger), target=spec("target", target), rate=rate, seed=seed)


def spec(kind: str, text: str) -> Any:
    """`badnet` or `badnet:ratio=0.2,corner=top-left`."""
    name, _, rest = text.partition(":")
    return options.made_of(kind, name, options.settings([part for part in rest.split(",") if part]))


class Bar:
    """A progress bar on stderr."""

    def __init__(self, name: str) -> None:
        self._console = err()
        self._bar = progress(self._console)
        self._name = name
        self._task: TaskID = self._bar.add_task(name, total=None)
        self._bar.start()
        self.farewell = "interrupted; the same command again goes on."

    def step(self, *, done: int, total: int, loss: float, note: str) -> None:
        """One step of a training."""
        self._bar.update(self._task, completed=done, total=total, description=f"{self._name} {loss:.3f}")
        self.farewell = f"interrupted after {done} of {total} steps; the same command again goes on."
        if note:
            self._console.print(f"skipped: {note}", markup=False)

    def picture(self, *, done: int, total: int, row: dict[str, Any]) -> None:
        """One picture measured."""
        self._bar.update(self._task, completed=done, total=total)
        if row["status"] == "failed":
            self._console.print(f"failed: {row['sample']}: {row['reason']}", markup=False)

    def close(self) -> None:
        """Take the bar away; safe to call twice."""
        self._bar.stop()
