"""`redsam attack IMAGE`: one attack on one photograph, with masks, a figure and the budget measured on the PNG."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from redsam.cli import options
from redsam.cli.console import err, out


def command(
    image: Annotated[Path, typer.Argument(help="A photograph.")],
    model: options.Model = "lab-b",
    attack: Annotated[str, typer.Option("--attack", "-a", help="See: redsam list attacks")] = "pgd",
    eps: Annotated[str, typer.Option(help="Budget: 8/255 for linf, 1.5 for l2, 100 (pixels) for l0.")] = "8/255",
    norm: Annotated[str, typer.Option(help="linf, l2 or l0.")] = "linf",
    steps: Annotated[int | None, typer.Option(min=1, help="Gradient steps; default: the attack's own.")] = None,
    objective: Annotated[str | None, typer.Option(help="See: redsam list objectives")] = None,
    point: options.Points = None,
    box: options.Boxes = None,
    mask: Annotated[list[Path] | None, typer.Option("--mask", metavar="PNG", help="Rough mask; repeatable.")] = None,
    text: options.Texts = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Another field of the attack; repeatable.")
    ] = None,
    folder: Annotated[Path, options.out_option("Where the files go.")] = Path("redsam-attack"),
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    seed: options.Seed = 0,
    defense: options.Defenses = None,
    as_json: options.Json = False,
) -> None:
    """Attack one image: adversarial PNG, masks before and after, a figure, and the measured budget.

    Each --point, --box, --mask and --text is a prompt of its own; one adversarial image is made against all of them.
    """
    from redsam import registry
    from redsam.cli.single import attack_one
    from redsam.data import read_image
    from redsam.models.pipeline import check_kind
    from redsam.threat import Threat

    # All that can be wrong is looked at before the weights are loaded.
    chosen = {**({"steps": steps} if steps else {}), **({"objective": objective} if objective else {})}
    recipe = options.recipe(attack, {**chosen, **options.settings(changes)})
    threat = Threat(norm=norm, eps=Threat.parse_eps(eps))  # type: ignore[arg-type]  # Threat checks the name itself
    if objective:
        registry.get("objective", objective)
    pixels = read_image(image)
    prompts = options.prompts(point, box, mask or [], (pixels.shape[1], pixels.shape[2]), text)
    options.folder(folder)
    with err().status(f"{model}: {attack} on {image.name}"):
        segmenter = options.load_model(model, device, dtype, defenses=defense, seed=seed)
        for prompt in prompts:
            check_kind(segmenter, prompt)
        result = attack_one(segmenter, recipe, image, prompts, threat=threat, seed=seed, out=folder)
    if as_json:
        typer.echo(json.dumps(result, indent=1))
    else:
        _print(result, threat.label, folder)


def _print(result: dict[str, Any], budget: str, folder: Path) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("prompt", "IoU with the clean prediction", "predicted IoU before", "after"):
        table.add_column(column, justify="left" if column == "prompt" else "right")
    for row in result["prompts"]:
        numbers = (row["iou_adv_clean"], row["pred_iou_clean"], row["pred_iou_adv"])
        table.add_row(_where(row["prompt"]), *(f"{value:.3f}" for value in numbers))
    out().print(table)
    spent = result["budget"]
    seen = "no change" if result["psnr"] is None else f"PSNR {result['psnr']:.1f} dB, SSIM {result['ssim']:.3f}"
    out().print(
        f"budget {budget}; measured on the PNG: linf {spent['linf_levels']}/255, l2 {spent['l2']:.3f}, "
        f"{spent['l0']} pixels; {seen}"
    )
    out().print(f"{result['attack']['name']}: {result['steps']} steps in {result['seconds']:.1f} s {result['flag']}")
    out().print(str(folder / "figure.png"), markup=False)


def _where(prompt: dict[str, Any]) -> str:
    """`point 120,80` or `box 10,20,90,80` or `text 'a dog'`."""
    numbers = prompt["box"] if "box" in prompt else [c for p in prompt.get("points", []) for c in p]
    if "text" in prompt:
        return f"text '{prompt['text']}'"
    return f"{prompt['kind']} {','.join(f'{n:g}' for n in numbers)}"
