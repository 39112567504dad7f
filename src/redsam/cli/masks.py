"""`redsam masks IMAGE`: everything the model segments without being prompted."""

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
    folder: Annotated[Path, options.out_option("Where the masks go.")] = Path("redsam-masks"),
    points_per_side: Annotated[int, typer.Option(min=1, max=256, help="Points of the prompt grid on each side.")] = 32,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    as_json: options.Json = False,
) -> None:
    """Automatic masks: a grid of points, stability score and box suppression, as published with SAM."""
    from redsam.data import read_image, write_png
    from redsam.models import automatic_masks

    pixels = read_image(image)
    options.folder(folder)
    with err().status(f"{model}: {points_per_side**2} prompts"):
        segmenter = options.load_model(model, device, dtype)
        found = automatic_masks(segmenter, pixels.to(segmenter.device), points_per_side=points_per_side)
    rows: list[dict[str, Any]] = []
    for i in range(len(found)):
        name = f"mask_{i:03d}.png"
        mask = found.masks[i].cpu()
        write_png(folder / name, mask.byte() * 255)
        numbers = {"pred_iou": float(found.iou[i]), "stability": float(found.stability[i])}
        rows.append({"file": name, "area": int(mask.sum()), "point": found.points[i].tolist(), **numbers})
    (folder / "masks.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    else:
        out().print(f"{len(rows)} masks in {folder}")
