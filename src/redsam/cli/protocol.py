"""`redsam protocol NAME`: a published evaluation protocol on any model and data, the published rows beside."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from redsam.cli import options
from redsam.cli.audit import Bar
from redsam.cli.console import Stopped, err, out
from redsam.errors import InputError

if TYPE_CHECKING:
    from redsam.models.base import Segmenter
    from redsam.studies import Study

USUAL = {"dtype": "float32", "batch-size": "1"}  # defaults of options that a typed command need not repeat


def command(
    name: Annotated[str, typer.Argument(help="See: redsam list studies")],
    model: options.Model = "lab-b",
    victims: Annotated[
        str | None,
        typer.Option("--victims", metavar="A,B", help="Models that are only shown what --model was fooled by."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", "-d", metavar="DIR", help="Photographs with masks; default: bundled ones."),
    ] = None,
    train: Annotated[
        str | None, typer.Option("--train", metavar="DIR", help="Other photographs, where the study learns from some.")
    ] = None,
    reader: Annotated[
        str | None, typer.Option(help="How to read --data and --train; default: found by itself.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many images, evenly spaced.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A field of the study; repeatable.")
    ] = None,
    folder: Annotated[Path, options.out_option("Where tables, report and records go; the same again goes on.")] = Path(
        "redsam-protocol"
    ),
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    batch_size: options.BatchSize = "1",
    memory: options.Memory = None,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Run a published evaluation protocol: its prompts, budgets, attacks and numbers, with the published rows beside.

    Interrupted and typed again, it goes on where it was.
    """
    from redsam import studies
    from redsam.bench.flight import batch_of
    from redsam.data import open_data
    from redsam.defenses import apart

    chosen = studies.study(name, **options.settings(changes))
    together = batch_of(batch_size, memory)
    named = apart(victims or "")
    chosen.check(victims=named, train=train)
    images = open_data(data, reader=reader)
    lessons = None if train is None else open_data(train, reader=reader)
    options.folder(folder)
    loaded = _load([model, *named], device, dtype)
    given = {
        "data": data, "train": train, "reader": reader, "limit": limit, "out": folder, "dtype": dtype,
        "batch-size": batch_size, "seed": seed,
    }  # fmt: skip
    bar = Bar()
    try:
        findings = chosen.run(
            loaded[0],
            images,
            out=folder,
            victims=loaded[1:],
            train=lessons,
            limit=limit,
            seed=seed,
            batch=together,
            progress=bar,
            command=_typed(chosen, name, model, named, given),
        )
    except KeyboardInterrupt:
        raise Stopped(bar.farewell) from None
    finally:
        bar.close()
    if as_json:
        typer.echo(json.dumps(findings.to_json(), indent=1, ensure_ascii=False))
        return
    out().print(findings.markdown(), markup=False)
    out().print(str(folder / "study.md"), markup=False)


def _load(names: Sequence[str], device: str, dtype: str) -> list[Segmenter]:
    """Each model once. Two of one name would be one column in every table, so that is refused."""
    found: dict[str, Segmenter] = {}
    for one in names:
        if one not in found:
            with err().status(f"loading {one}"):
                found[one] = options.load_model(one, device, dtype)
    shown = [s.name for s in found.values()]
    twice = next((s for s in shown if shown.count(s) > 1), None)
    if twice is not None:
        raise InputError(f"Two of the models are called '{twice}'.", hint="Rename one of the folders.")
    return [found[one] for one in names]


def _typed(
    study: Study,
    name: str,
    model: str,
    victims: Sequence[str],
    given: Mapping[str, Any],
) -> str:
    """The command that makes this run again, for the report: what was given, and is not the default."""
    words = ["redsam", "protocol", name, "--model", model]
    for option, value in {"victims": ",".join(victims), **given}.items():
        if value and value != USUAL.get(option):
            words += [f"--{option}", str(value)]
    for one in fields(study):
        value = getattr(study, one.name)
        if value != getattr(type(study)(), one.name):
            words += ["--set", f"{one.name}={json.dumps(value)}"]
    return shlex.join(words)
