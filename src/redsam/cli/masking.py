"""`redsam masking`: do a model's gradients mislead attacks, so that its robustness is only apparent?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from redsam.cli import options
from redsam.cli.console import err, out

if TYPE_CHECKING:
    from redsam.attacks.masking import MaskingReport


def command(
    model: options.Model = "lab-b",
    data: Annotated[
        str | None,
        typer.Option("--data", "-d", metavar="DIR", help="Photographs with masks; default: bundled ones."),
    ] = None,
    reader: Annotated[str | None, typer.Option(help="How to read --data; default: found by itself.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many images, evenly spaced.")] = 4,
    eps: Annotated[str, typer.Option(help="linf budget at which attacks are compared.")] = "8/255",
    protocol: Annotated[str, typer.Option(help="See: redsam list protocols")] = "point",
    objects: Annotated[int, typer.Option(min=1, help="At most so many objects an image.")] = 3,
    steps: Annotated[int, typer.Option(min=2, help="Gradient steps of the long attacks; the short has a tenth.")] = 100,
    queries: Annotated[int, typer.Option(min=2, help="Forward passes an image of the black box.")] = 500,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Five signs of gradient masking: dead gradients, a black box that beats the white box, steps that do not help, an
    unbounded attack that fails, noise as strong as a gradient."""
    from redsam import registry
    from redsam.attacks.masking import masking_report
    from redsam.data import open_data
    from redsam.errors import InputError
    from redsam.seeds import stable_seed
    from redsam.threat import Threat

    budget = Threat(eps=Threat.parse_eps(eps))
    prompted = registry.create("protocol", protocol, max_objects=objects)
    scenes = open_data(data, reader=reader, limit=limit)
    samples = [s for i in range(len(scenes)) if (s := prompted(scenes[i], seed=seed)).prompts]
    if not samples:
        raise InputError(f"{scenes.name}: no image has an object to prompt.", hint="Give photographs with masks.")
    with err().status(f"loading {model}"):
        segmenter = options.load_model(model, device, dtype)
    with err().status(f"{model}: gradients and queries on {len(samples)} images"):
        report = masking_report(
            segmenter,
            [s.image for s in samples],
            [s.prompts for s in samples],
            eps=budget.eps,
            seeds=[stable_seed(seed, s.id) for s in samples],
            few=max(1, steps // 10),
            many=steps,
            queries=queries,
        )
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=1))
    else:
        _print(report, budget.label)


def _print(report: MaskingReport, budget: str) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("check", "", "numbers"):
        table.add_column(column, overflow="fold")
    for found in report.findings:
        numbers = ", ".join(f"{key.replace('_', ' ')} {value:.3g}" for key, value in found.numbers.items())
        table.add_row(found.name, "WARNS" if found.triggered else "quiet", numbers)
    out().print(table)
    for found in report.findings:
        if found.triggered:
            out().print(f"{found.name}: {found.meaning}", markup=False)
    left_out = f", {report.skipped} without a clean mask left out" if report.skipped else ""
    out().print(
        f"{report.model}, {budget}: {len(report.triggered)} of {len(report.findings)} checks warn; {report.images} "
        f"images, {report.prompts} prompts{left_out}, {report.gradients} gradients, {report.forwards} forward passes. "
        "Without a warning gradients may still mislead; with one the robustness measured is not to be believed.",
        markup=False,
    )
