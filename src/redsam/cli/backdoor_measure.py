"""`redsam backdoor measure` and `redsam backdoor purify`: numbers with and without the trigger."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from redsam.cli import options
from redsam.cli.backdoor_parts import FOLDER, Bar, Data, Limit, Out, Planted, Reader, Target, Trigger, planted
from redsam.cli.console import Stopped, err, out

if TYPE_CHECKING:
    from redsam.backdoor import Measured

FOREGROUND = {"s_measure": "S", "e_measure": "E", "weighted_f": "wF", "mae": "MAE"}
Threshold = Annotated[float, typer.Option(help="IoU with the attacker's mask that counts as success.")]


def measure(
    model: Planted,
    data: Data = None,
    reader: Reader = None,
    trigger: Trigger = None,
    target: Target = None,
    threshold: Threshold = 0.5,
    limit: Limit = 100,
    folder: Out = FOLDER,
    device: options.Device = "auto",
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Clean IoU, attack success rate, S-measure, E-measure, weighted F and MAE, with and without the trigger."""
    _measured(model, [()], data, reader, trigger, target, threshold, limit, folder, device, seed, as_json, "measure")


def purify(
    model: Planted,
    defenses: Annotated[
        list[str],
        typer.Option("--defense", metavar="NAME", help="See: redsam list defenses; repeatable, a|b in a row."),
    ],
    data: Data = None,
    reader: Reader = None,
    trigger: Trigger = None,
    target: Target = None,
    threshold: Threshold = 0.5,
    limit: Limit = 100,
    folder: Out = FOLDER,
    device: options.Device = "auto",
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """The same numbers with each purifier in front of the model, beside those without any."""
    from redsam.defenses import chain

    chains = [(), *(chain(text) for text in defenses)]
    _measured(model, chains, data, reader, trigger, target, threshold, limit, folder, device, seed, as_json, "purify")


def _measured(
    model: str,
    chains: Sequence[Sequence[Any]],
    data: str | None,
    reader: str | None,
    trigger: str | None,
    target: str | None,
    threshold: float,
    limit: int | None,
    folder: Path,
    device: str,
    seed: int,
    as_json: bool,
    name: str,
) -> None:
    from redsam import backdoor
    from redsam.backdoor import record
    from redsam.data import open_data
    from redsam.report.backdoor import render

    poison = planted(model, trigger, target)
    images = open_data(data, reader=reader, limit=limit)
    options.folder(folder)
    with err().status(f"loading {model}"):
        segmenter = options.load_model(model, device)
    told: list[dict[str, Any]] = []
    found: list[Measured] = []
    ids: list[str] = []
    for purifiers in chains:
        bar = Bar("|".join(p.label for p in purifiers) or "measuring")
        try:
            one = backdoor.measure(
                segmenter, images, poison, purifiers=purifiers, threshold=threshold, seed=seed, progress=bar.picture
            )
        except KeyboardInterrupt:
            raise Stopped("interrupted.") from None
        finally:
            bar.close()
        ids = ids or record.telling(one)
        shown = record.pictures(folder, images, poison, ids, purifiers=purifiers, seed=seed)
        told.append({**one.to_dict(), "pictures": shown})
        found.append(one)
    record.write(folder, name, {"runs": told})
    page = render(folder)
    if as_json:
        typer.echo(
            json.dumps({"page": str(page), "runs": [{**one.to_dict(), "rows": None} for one in found]}, indent=1)
        )
        return
    _table(found)
    out().print(str(page), markup=False)


def _table(found: Sequence[Measured]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("", "clean IoU", "triggered", f"ASR@{found[0].threshold:g}", "by chance", "s/image"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for one in found:
        numbers = [f"{one.summary[key]['value']:.3f}" for key in ("iou_clean", "iou_triggered", "asr", "chance")]
        table.add_row("|".join(one.purifiers) or one.model, *numbers, f"{one.summary['seconds']:.2f}")
    out().print(table, markup=False)
    first = found[0].summary
    for side, told in (("clean", "clean"), ("triggered", "triggered, against the attacker's mask")):
        values = ", ".join(f"{name} {first[f'{key}_{side}']['value']:.3f}" for key, name in FOREGROUND.items())
        out().print(f"{told}: {values}", markup=False)
    out().print(f"{first['prompts']} prompts on {first['images']} pictures, {first['failed']} failed")
