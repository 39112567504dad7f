"""`redsam harden MODEL`: train few numbers of a model against attacks, or lay a delta on it; out comes a folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import TextColumn

from redsam.cli import options
from redsam.cli.bar import progress
from redsam.cli.console import Stopped, err, out
from redsam.errors import InputError


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=options.MODEL_HELP)],
    method: Annotated[str, typer.Option("--method", help="See: redsam list defenses, group tuning.")] = "svd",
    data: Annotated[
        list[Path] | None, typer.Option("--data", "-d", metavar="DIR", help="Photographs with masks; repeatable.")
    ] = None,
    folder: Annotated[Path, options.out_option("The hardened model, as save_pretrained writes it.")] = Path("hardened"),
    steps: Annotated[int | None, typer.Option(help="Training steps; default 1000 without --minutes.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Training time; with --steps whichever ends first.")] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option("--attack", "-a", metavar="NAME:FIELD=VALUE", help="Trained against; repeatable, in turn."),
    ] = None,
    eps: Annotated[str, typer.Option(help="Budget in linf.")] = "8/255",
    adversarial: Annotated[float, typer.Option(help="Share of each batch that is attacked.")] = 0.5,
    prompts: Annotated[str, typer.Option(help="Mix of prompt protocols with weights.")] = "point=1,box=1",
    objects: Annotated[int, typer.Option(help="Objects of an image, at most.")] = 3,
    batch: Annotated[int, typer.Option(help="Images a step.")] = 8,
    lr: Annotated[float | None, typer.Option(help="Peak rate; default: the method's own.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Another field of the method; repeatable.")
    ] = None,
    held_out: Annotated[int, typer.Option(help="Images of the data kept for checks.")] = 24,
    check_every: Annotated[int, typer.Option(help="Steps between two checks.")] = 100,
    check_attack: Annotated[
        list[str] | None, typer.Option(metavar="NAME:FIELD=VALUE", help="Robust IoU is measured against; repeatable.")
    ] = None,
    patience: Annotated[int, typer.Option(help="Checks without a new best until it ends; 0: never.")] = 10,
    clean_loss: Annotated[float, typer.Option(help="The most that held-out clean IoU may fall.")] = 0.02,
    limit: Annotated[int | None, typer.Option(help="At most so many photographs, evenly spaced.")] = None,
    delta: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Train nothing: lay this delta on the model.")
    ] = None,
    device: options.Device = "auto",
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Harden a model by training, with early stopping on held-out robust IoU.

    Writes a folder that transformers alone loads, a delta of the trained numbers, and a model card. Interrupted or
    killed and typed again, it goes on where it was.
    """
    if delta is not None:
        _lay(model, delta, folder, device, as_json)
        return
    from redsam.data import join, open_data
    from redsam.threat import Threat
    from redsam.tuning import Course, harden
    from redsam.tuning.course import ATTACKS, CHECK, mix
    from redsam.tuning.hardening import check_model

    tuning = _method(method, changes)
    course = Course(
        steps=steps, minutes=minutes, batch=batch, lr=lr, attacks=tuple(attack or ATTACKS), eps=Threat.parse_eps(eps),
        adversarial=adversarial, prompts=mix(prompts), objects=objects, held_out=held_out, check_every=check_every,
        check_attacks=tuple(check_attack or CHECK), patience=patience, clean_loss=clean_loss, seed=seed,
    )  # fmt: skip
    if not data:
        raise InputError("There is nothing to train on.", hint="Type: --data DIR, photographs with masks.")
    photographs = join([open_data(path) for path in data]).limit(limit)
    with err().status(f"loading {model}"):
        segmenter = options.load_model(model, device)
    check_model(segmenter)
    processor = _processor(model)
    bar = Bar(f"{method} on {model}")
    try:
        made = harden(segmenter, photographs, method=tuning, out=folder, course=course, processor=processor, watch=bar)
    except KeyboardInterrupt:
        raise Stopped(bar.farewell) from None
    finally:
        bar.close()
    facts = made.facts
    if as_json:
        typer.echo(json.dumps({"out": str(folder), **facts}, indent=1))
        return
    before, after = facts["before"], facts["after"]
    out().print(
        f"{method} on {segmenter.name}: {facts['numbers']:,} of {facts['parameters']:,} numbers trained, "
        f"{facts['tensors_frozen']} of {facts['tensors']} tensors frozen bit for bit"
    )
    out().print(
        f"held-out IoU, {facts['held_out']['images']} images: robust {before['robust']:.3f} to {after['robust']:.3f}, "
        f"clean {before['clean']:.3f} to {after['clean']:.3f}; ended {facts['ended']}"
    )
    out().print(str(folder), markup=False)


def _method(name: str, changes: list[str] | None) -> Any:
    """A tuning with these fields. Raises UnknownName, and InputError for a defence that trains nothing."""
    from redsam import registry
    from redsam.tuning import Tuning

    known = [e.name for e in registry.entries("defense") if e.meta["group"] == "tuning"]
    if name not in known and name in registry.names("defense"):
        raise InputError(f"'{name}' changes images, it trains nothing.", hint=f"Known methods: {', '.join(known)}.")
    if name not in known:
        raise registry.unknown("method", name, known)
    made: Tuning = options.made_of("defense", name, options.settings(changes))
    return made


def _processor(model: str) -> dict[str, Any]:
    """The settings of the image processor beside a model, which travel with it."""
    from redsam.models.checkpoints import read_processor
    from redsam.models.loading import resolve

    source = resolve(model)
    return {} if isinstance(source, Path) and source.is_file() else read_processor(source)


def _lay(model: str, file: Path, folder: Path, device: str, as_json: bool) -> None:
    """A delta on its original, as a folder."""
    from redsam.tuning.delta import Delta
    from redsam.tuning.hardening import check_model, room, save_folder

    delta = Delta.load(file)
    with err().status(f"loading {model}"):
        segmenter = options.load_model(model, device)
    check_model(segmenter)
    room(segmenter, folder)
    delta.apply(segmenter)
    save_folder(segmenter, folder, processor=_processor(model))
    told = {"out": str(folder), "method": delta.method, "numbers": delta.numbers, "fingerprint": delta.after}
    if as_json:
        typer.echo(json.dumps(told, indent=1))
        return
    out().print(f"{delta.numbers:,} numbers of method {delta.method['name']} laid on {segmenter.name}")
    out().print(str(folder), markup=False)


class Bar:
    """A progress bar on stderr, and a line for each check."""

    def __init__(self, name: str) -> None:
        self._console = err()
        self._bar = progress(self._console, TextColumn("{task.percentage:.0f} %"), TextColumn("{task.fields[told]}"))
        self._task = self._bar.add_task(name, total=1.0, told="")
        self._started = False
        self.farewell = "interrupted; the same command again goes on."

    def __call__(self, *, done: float, step: int, loss: float, entry: Mapping[str, Any] | None) -> None:
        """One step or one check is done."""
        if not self._started:
            self._started = True
            self._bar.start()
            if step > 1:
                self._console.print(f"going on from step {step}")
        told = f"step {step}" if math.isnan(loss) else f"step {step}, loss {loss:.3f}"
        self._bar.update(self._task, completed=min(done, 1.0), told=told)
        self.farewell = f"interrupted after {step} steps; the same command again goes on."
        if entry is not None:
            robust = "given up: clean IoU fell too far" if entry["robust"] is None else f"robust {entry['robust']:.3f}"
            share = "" if entry["share"] == 1 else f" at {entry['share']:.0%} of the way"
            self._console.print(f"step {step}: clean {entry['clean']:.3f}, {robust}{share}", markup=False)

    def close(self) -> None:
        """Take the bar away; safe to call twice."""
        self._bar.stop()
