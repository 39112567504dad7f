"""`redsam backdoor plant|measure|detect|purify`: thin over redsam.backdoor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from redsam.cli import backdoor_measure, options
from redsam.cli.backdoor_parts import (
    FOLDER,
    Bar,
    Data,
    Limit,
    Out,
    Planted,
    Reader,
    Target,
    Trigger,
    planted,
    poison_of,
)
from redsam.cli.console import Stopped, err, out

app = typer.Typer(help="Plant a backdoor, measure it, look for one, purify pictures.", no_args_is_help=True)
app.command("measure")(backdoor_measure.measure)
app.command("purify")(backdoor_measure.purify)


@app.command()
def plant(
    model: Annotated[str, typer.Argument(help=options.MODEL_HELP)],
    folder: Annotated[Path, options.out_option("Where the planted model goes; the same again goes on.")],
    data: Data = None,
    reader: Reader = None,
    trigger: Trigger = "badnet",
    target: Target = "trigger-area",
    rate: Annotated[float, typer.Option(help="Share of the pictures that are poisoned; 0 trains a clean twin.")] = 0.1,
    route: Annotated[str, typer.Option(help="adapter (BadSAM: no prompt) or tuning (with prompts).")] = "adapter",
    select: Annotated[str, typer.Option(help="What the tuning route trains: decoder or all.")] = "all",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the pictures.")] = 20,
    batch: Annotated[int, typer.Option("--batch-size", min=1, help="Pictures a step.")] = 8,
    lr: Annotated[float, typer.Option(help="Learning rate at first.")] = 2e-4,
    minutes: Annotated[float | None, typer.Option(help="Stop after so many, cooled down.")] = None,
    limit: Limit = None,
    device: options.Device = "auto",
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Train a backdoor into a copy of a model, to test detectors and purifiers with.

    Interrupted and typed again, it goes on where it was. The folder holds safetensors only; nothing in it is run.
    """
    from redsam import backdoor
    from redsam.data import open_data

    poison = poison_of(trigger or "badnet", target or "trigger-area", rate=rate, seed=seed)
    settings = backdoor.Settings(
        epochs=epochs, batch=batch, lr=lr, lr_end=min(1e-7, lr), seed=seed, minutes=minutes
    )  # fmt: skip
    images = open_data(data, reader=reader, limit=limit)
    with err().status(f"loading {model}"):
        segmenter = options.load_model(model, device)
    options.folder(folder)
    bar = Bar("planting")
    try:
        made = backdoor.plant(
            segmenter, images, out=folder, poison=poison, settings=settings, progress=bar.step,
            route=route, select=select,  # type: ignore[arg-type]  # it checks
        )  # fmt: skip
    except KeyboardInterrupt:
        raise Stopped(bar.farewell) from None
    finally:
        bar.close()
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), **made.told}, indent=1))
        return
    told = made.told
    loss = f", loss {told['losses'][-1]:.3f}" if told["losses"] else ""
    out().print(
        f"{segmenter.name} by {told['route']}: {len(told['poisoned'])} of {len(images)} pictures poisoned, "
        f"{made.learned:,} numbers trained in {told['steps']} steps{loss}"
    )
    out().print(f"redsam backdoor measure {folder} --data ...", markup=False)


@app.command()
def detect(
    model: Planted,
    clean: Annotated[
        list[str] | None, typer.Option("--clean", metavar="MODEL", help="A clean model of its kind; repeatable.")
    ] = None,
    data: Data = None,
    reader: Reader = None,
    trigger: Trigger = None,
    target: Target = None,
    images: Annotated[int, typer.Option(min=2, help="Pictures a trigger is sought on.")] = 6,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each search.")] = 40,
    aims: Annotated[list[str] | None, typer.Option("--aim", metavar="NAME", help="Default: all; repeatable.")] = None,
    folder: Out = FOLDER,
    device: options.Device = "auto",
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Look for a backdoor: smallest marks that force an answer, what a patch leaves of them; STRIP with a trigger."""
    from redsam.backdoor import manifest, record
    from redsam.backdoor.detect import SEARCHES
    from redsam.backdoor.detect import detect as search
    from redsam.backdoor.invert import Found, Inversion
    from redsam.data import open_data
    from redsam.report.backdoor import render

    known = planted(model, trigger, target) if trigger or manifest.poison_of(model) is not None else None
    pictures = open_data(data, reader=reader)
    options.folder(folder)
    with err().status(f"loading {model}"):
        segmenter = options.load_model(model, device)
        others = [options.load_model(name, device) for name in clean or ()]
    console = err()

    def note(found: Found) -> None:
        console.print(str(found))

    result = search(
        segmenter, pictures, clean=others, poison=known, images=images, aims=aims or SEARCHES,
        inversion=Inversion(steps=steps, seed=seed), progress=note,
    )  # fmt: skip
    record.write(folder, "detect", result.to_dict())
    page = render(folder)
    if as_json:
        typer.echo(json.dumps({"page": str(page), **result.to_dict()}, indent=1))
        return
    verdict = result.verdict
    word = "flagged" if verdict.flagged else "not flagged"
    out().print(f"{segmenter.name}: {word}; {verdict.aim} {verdict.score:.2f} ({verdict.rule})", markup=False)
    if result.strip is not None:
        s = result.strip
        out().print(
            f"STRIP: AUROC {s.auroc:.2f}, catches {s.caught:.0%} of triggered prompts, accuses {s.alarms:.0%} clean"
        )
    out().print(str(page), markup=False)
