"""`redsam corrupt IMAGE`: one photograph in another weather, through another lens, from a worse camera."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from redsam.cli import options
from redsam.cli.console import out
from redsam.errors import InputError


def command(
    image: Annotated[Path, typer.Argument(help="A photograph.")],
    name: Annotated[str, typer.Option("--name", "-n", help="See: redsam list corruptions")],
    severity: Annotated[int, typer.Option("--severity", "-s", help="1 (slight) to 5 (strong).")] = 3,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Another field of the corruption; repeatable."),
    ] = None,
    file: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="The PNG to write, of the photograph's size.")
    ] = Path("corrupted.png"),
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Corrupt one photograph and write it as PNG. The same seed gives the same bytes."""
    from redsam.data import read_image, write_png
    from redsam.metrics import psnr, ssim
    from redsam.registry import spec_of
    from redsam.types import to_uint8

    corruption = options.made_of("corruption", name, {"severity": severity, **options.settings(changes)})
    if file.is_dir() or file.suffix.lower() != ".png":
        proposal = file / "corrupted.png" if file.is_dir() else file.with_suffix(".png")
        raise InputError(f"{file}: the result is a PNG file, which keeps every pixel.", hint=f"Type: --out {proposal}")
    pixels = read_image(image)
    made = corruption.run(pixels[None], seeds=[seed])
    options.folder(file.parent)
    write_png(file, to_uint8(made.images[0]))
    noise, likeness = float(psnr(made.images[0], pixels)), float(ssim(made.images[0], pixels))
    if as_json:
        result: dict[str, Any] = {
            "image": str(image),
            "file": str(file),
            "corruption": spec_of(corruption),
            "seed": seed,
            "size": list(pixels.shape[1:]),
            "moved": made.grid is not None,
            "psnr": noise if math.isfinite(noise) else None,  # of an unchanged image it is infinite
            "ssim": likeness,
        }
        typer.echo(json.dumps(result, indent=1))
        return
    moved = "; pixels moved" if made.grid is not None else ""
    out().print(f"{name} at severity {corruption.severity}: PSNR {noise:.1f} dB, SSIM {likeness:.3f}{moved}")
    out().print(str(file), markup=False)
