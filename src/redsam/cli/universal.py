"""`redsam universal ATTACK`: learn one perturbation for all images, and go on where an interruption left it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from redsam.cli import options
from redsam.cli.bar import progress
from redsam.cli.console import Stopped, err, out
from redsam.errors import InputError


def command(
    attack: Annotated[str, typer.Argument(help="A universal attack; see: redsam list attacks")],
    model: options.Model = "lab-b",
    data: Annotated[
        str | None, typer.Option("--data", "-d", metavar="DIR", help="Photographs; default: bundled ones.")
    ] = None,
    reader: Annotated[str | None, typer.Option(help="How to read --data; default: found by itself.")] = None,
    eps: Annotated[str, typer.Option(help="Budget in linf.")] = "10/255",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many images, evenly spaced.")] = 100,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over them; default: the attack's own.")] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Side in pixels; default: the model's own frame.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Another field of the attack; repeatable.")
    ] = None,
    file: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where the perturbation goes.")] = Path(
        "universal.safetensors"
    ),
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Learn a universal perturbation on a set of photographs and write it to a file.

    Lay it onto an image with: redsam attack IMAGE --attack ATTACK --set artefact=FILE. Interrupted and typed again, it
    goes on where it was.
    """
    from redsam import registry
    from redsam.attacks.universal import UniversalAttack
    from redsam.attacks.universal_training import train
    from redsam.data import open_data
    from redsam.threat import Threat

    recipe = options.recipe(attack, options.settings(changes))
    if not isinstance(recipe, UniversalAttack):
        known = ", ".join(e.name for e in registry.entries("attack") if e.meta["kind"] == "universal")
        raise InputError(f"Attack '{attack}' makes no universal perturbation.", hint=f"These do: {known}.")
    threat = Threat(eps=Threat.parse_eps(eps))
    images = open_data(data, reader=reader, limit=limit)
    if file.is_dir():
        raise InputError(f"{file} is a folder.", hint=f"Type: --out {file / 'universal.safetensors'}")
    options.folder(file.parent)
    with err().status(f"loading {model}"):
        segmenter = options.load_model(model, device, dtype)
    bar = Bar(attack)
    try:
        artefact = train(
            recipe, segmenter, images, threat=threat, out=file, epochs=epochs, seed=seed, size=size, progress=bar
        )
    except KeyboardInterrupt:
        raise Stopped(bar.farewell) from None
    finally:
        bar.close()
    if as_json:
        typer.echo(json.dumps({"file": str(file), **artefact.to_dict()}, indent=1))
        return
    skipped = f", {len(artefact.skipped)} skipped" if artefact.skipped else ""
    out().print(
        f"{attack} on {segmenter.name}, {threat.label}: {len(artefact.ids)} images{skipped}, {artefact.steps} gradients"
    )
    out().print(str(file), markup=False)


class Bar:
    """A progress bar on stderr, and a line for each image that could not be used."""

    def __init__(self, name: str) -> None:
        self._console = err()
        self._bar = progress(self._console)
        self._task = self._bar.add_task(name, total=None)
        self._started = False
        self.farewell = "interrupted; the same command again goes on."

    def __call__(self, *, done: int, total: int, note: str) -> None:
        """One image is done."""
        if not self._started:
            self._started = True
            self._bar.start()
            if done > 1:
                self._console.print(f"going on: {done - 1} of {total} images were learned from earlier")
        self._bar.update(self._task, completed=done, total=total)
        self.farewell = f"interrupted after {done} of {total} images; the same command again goes on."
        if note:
            self._console.print(f"skipped: {note}", markup=False)

    def close(self) -> None:
        """Take the bar away; safe to call twice."""
        self._bar.stop()
