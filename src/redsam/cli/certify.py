"""`redsam certify IMAGE`: masks with a radius inside which nothing can change them, and where there is none."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from redsam.cli import options
from redsam.cli.bar import progress
from redsam.cli.console import err, out

if TYPE_CHECKING:
    from torch import Tensor

    from redsam.defenses.smoothing import Certificate


def command(
    image: Annotated[Path, typer.Argument(help="A photograph.")],
    model: options.Model = "lab-b",
    point: options.Points = None,
    box: options.Boxes = None,
    mask: Annotated[list[Path] | None, typer.Option("--mask", metavar="PNG", help="Rough mask; repeatable.")] = None,
    text: options.Texts = None,
    sigma: Annotated[float, typer.Option(help="Standard deviation of the noise, in [0, 1] units.")] = 0.25,
    tau: Annotated[float, typer.Option(help="Share of noisy copies that must agree, above 0.5.")] = 0.75,
    alpha: Annotated[float, typer.Option(help="Chance that any certificate of a mask is wrong.")] = 0.001,
    n0: Annotated[int, typer.Option(help="Noisy copies that choose each pixel's answer.")] = 10,
    n: Annotated[int, typer.Option(help="Other noisy copies that test it.")] = 100,
    folder: Annotated[Path, options.out_option("Where maps, masks and certificate.json go.")] = Path("redsam-certify"),
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    batch_size: Annotated[int, typer.Option(min=1, help="Noisy copies that share an encoder call.")] = 8,
    seed: options.Seed = 0,
    defense: options.Defenses = None,
    as_json: options.Json = False,
) -> None:
    """Certify the smoothed model's masks of one photograph (SegCertify): pixel by pixel, inside an l2 radius.

    Each --point, --box, --mask and --text is a prompt of its own. A model that never saw noise abstains nearly
    everywhere; put a denoiser in front of it: --defense bilateral.
    """
    from redsam.data import read_image
    from redsam.defenses.smoothing import SegCertify
    from redsam.models.pipeline import check_kind

    chosen = SegCertify(sigma=sigma, tau=tau, alpha=alpha, n0=n0, n=n)
    pixels = read_image(image)
    prompts = options.prompts(point, box, mask or [], (pixels.shape[1], pixels.shape[2]), text)
    options.folder(folder)
    with err().status(f"loading {model}"):
        segmenter = options.load_model(model, device, dtype, defenses=defense, seed=seed)
    for prompt in prompts:
        check_kind(segmenter, prompt)
    began = time.perf_counter()
    with progress(err()) as bar:
        task = bar.add_task("noisy copies", total=n0 + n)
        found = chosen.certify(
            segmenter, pixels, prompts, seed=seed, batch=batch_size,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    rows = write(found, pixels, folder)
    result: dict[str, Any] = {
        "schema": 1,
        "image": image.name,
        "size": list(pixels.shape[1:]),
        "model": {"name": segmenter.name, "family": segmenter.family, "fingerprint": segmenter.fingerprint()},
        "defense": segmenter.defense,
        **{name: getattr(chosen, name) for name in ("sigma", "tau", "alpha", "n0", "n", "correction")},
        "radius": found.radius,
        "seed": seed,
        "seconds": time.perf_counter() - began,
        "prompts": [{"prompt": p.to_dict(), **row} for p, row in zip(prompts, rows, strict=True)],
    }
    (folder / "certificate.json").write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(result, indent=1))
        return
    out().print(
        f"Inside an l2 radius of {found.radius:.3g} (sigma {sigma:g}, tau {tau:g}) nothing changes the certified "
        f"pixels of the smoothed {segmenter.name}; chance of error of each mask at most {alpha:g}:"
    )
    for row in rows:
        out().print(
            f"{row['map']}: {row['certified_object']:.1%} of the image certainly of the object, "
            f"{row['certified_rest']:.1%} certainly not, {row['abstained']:.1%} without a certificate",
            markup=False,
        )
    out().print(str(folder), markup=False)


def write(found: Certificate, pixels: Tensor, folder: Path) -> list[dict[str, Any]]:
    """Map, mask and certified pixels of each prompt as PNG; their shares and names."""
    import torch

    from redsam.data import write_png
    from redsam.report.certificate import certificate_map
    from redsam.types import to_uint8

    photo = to_uint8(pixels).permute(1, 2, 0).numpy()
    rows = []
    for i, (mask, sure) in enumerate(zip(found.masks, found.certified, strict=True)):
        files = {"map": f"certificate_{i}.png", "mask": f"mask_{i}.png", "certified": f"certified_{i}.png"}
        drawn = torch.from_numpy(certificate_map(photo, mask.numpy(), sure.numpy())).permute(2, 0, 1)
        write_png(folder / files["map"], drawn.contiguous())
        write_png(folder / files["mask"], mask.byte() * 255)
        write_png(folder / files["certified"], sure.byte() * 255)
        shares = {"certified_object": mask & sure, "certified_rest": ~mask & sure, "abstained": ~sure}
        rows.append({**files, **{name: float(share.float().mean()) for name, share in shares.items()}})
    return rows
