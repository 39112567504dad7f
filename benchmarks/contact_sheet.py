"""Contact sheet: every registered corruption at severities 1, 3 and 5 on photographs of your own, to be looked at.

    python benchmarks/contact_sheet.py --data ../shared/data/eval/camvid720 --out build/contact-sheet.png
    python benchmarks/contact_sheet.py --only rain,raindrops --photos 3 --zoom 0.25

One row for each corruption and photograph: the photograph, then it at each severity, with PSNR below. --zoom cuts a
square of this part of the picture out of its middle, to see streaks and drops pixel by pixel. Corruptions that need
something of yours (a network) are left out. Pictures of data are not to be committed: by default they lie below build/.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from redsam import registry
from redsam.data.demo import demo_root
from redsam.data.images import IMAGE_SUFFIXES, read_image
from redsam.metrics.images import psnr
from redsam.models.resample import resize
from redsam.types import to_uint8

CAPTION = 16  # pixels below each picture


def main() -> None:
    args = _arguments()
    torch.set_num_threads(args.threads)
    photos = pick(args.data, args.photos)
    if not photos:
        sys.exit(f"{args.data}: no photographs there. Give a folder of JPEG or PNG files: --data FOLDER")
    rows = []
    for name in args.only or [e.name for e in registry.entries("corruption") if not e.meta.get("needs")]:
        for number, photo in enumerate(photos):
            rows.append(row(name, photo, args.severities, number, args.width, args.zoom))
        print(f"{name} done", flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(args.out)
    print(args.out)


def pick(data: Path, count: int) -> list[Path]:
    """Photographs spread evenly over a folder; masks, which share a photograph's name and end in .png, are left out."""
    found = sorted(p for p in data.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    pictures = {p.stem for p in found if p.suffix.lower() != ".png"}
    found = [p for p in found if p.suffix.lower() != ".png" or p.stem not in pictures]
    return [found[(2 * i + 1) * len(found) // (2 * count)] for i in range(min(count, len(found)))]


def row(name: str, photo: Path, severities: list[int], seed: int, width: int, zoom: float) -> np.ndarray:
    """uint8 HxWx3: the photograph and it at each severity, side by side."""
    image = read_image(photo)[None]
    cells = [cell(image[0], f"{name}: {photo.name}", width, zoom)]
    for severity in severities:
        made = registry.create("corruption", name, severity=severity).run(image, seeds=[seed]).images
        cells.append(cell(made[0], f"{name} {severity}: {float(psnr(made, image)[0]):.1f} dB", width, zoom))
    return np.concatenate(cells, axis=1)


def cell(image: Tensor, caption: str, width: int, zoom: float) -> np.ndarray:
    """uint8 HxWx3: the middle of a picture at this width, its caption below."""
    height, whole = image.shape[-2:]
    h, w = max(int(height * zoom), 2), max(int(whole * zoom), 2)
    top, left = (height - h) // 2, (whole - w) // 2
    small = resize(image[None, :, top : top + h, left : left + w], (max(round(width * h / w), 1), width))[0]
    picture = Image.fromarray(to_uint8(small).permute(1, 2, 0).numpy())
    sheet = Image.new("RGB", (width, picture.height + CAPTION), "white")
    sheet.paste(picture)
    ImageDraw.Draw(sheet).text((3, picture.height + 2), caption, fill="black")
    return np.asarray(sheet)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=demo_root(), help="folder of photographs (the bundled ones)")
    parser.add_argument("--out", type=Path, default=Path("build/contact-sheet.png"))
    parser.add_argument("--only", type=lambda s: s.split(","), help="names of corruptions, by commas (all)")
    parser.add_argument("--photos", type=int, default=1, help="how many photographs (1)")
    parser.add_argument("--severities", type=lambda s: [int(v) for v in s.split(",")], default=[1, 3, 5])
    parser.add_argument("--width", type=int, default=480, help="of one picture in pixels (480)")
    parser.add_argument("--zoom", type=float, default=1.0, help="part of each side that is shown, from the middle (1)")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
