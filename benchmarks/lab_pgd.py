"""PGD-40 on lab-b over 100 images: images per second before and after, on all cores.

Before: one image at a time with transformers' own attention, the switches off. After: what is fastest now, with as
many images in flight as pay; the batch is found by timing one step at 1, 2, 4, ... images on this machine. Photographs
are the bundled ones, cut to 320 x 320 at as many places as are asked for. The arms take turns on slices of the images;
the ratio is the median of the paired ones. Both arms start from the same seeds; how strong either is, is printed beside
it (mean IoU with the clean masks, on delivered 8-bit images).

    python benchmarks/lab_pgd.py --out benchmarks/results/lab_pgd.json     # four cores: about 10 minutes
    python benchmarks/lab_pgd.py --images 4 --steps 3 --slices 1            # whether it runs
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

# Before torch is imported: threads that spin while they wait starve the jobs beside them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor

from redsam.attacks.pgd import PGD
from redsam.data import open_data
from redsam.metrics import iou
from redsam.models import load
from redsam.models.base import Segmenter
from redsam.prompts import Prompt, point
from redsam.seeds import generator
from redsam.threat import Threat
from redsam.types import from_uint8

SIDE = 320


def cuts(count: int) -> Tensor:
    """uint8-valued float `count` x 3 x 320 x 320 from the bundled photographs, places drawn from a fixed seed."""
    data, random = open_data("demo"), generator("lab-pgd", "cuts")
    scenes = [s for s in (data[i].image for i in range(len(data))) if min(s.shape[-2:]) >= SIDE]
    out = []
    for i in range(count):
        image = scenes[i % len(scenes)]
        top, left = (int(torch.randint(n - SIDE + 1, (), generator=random)) for n in image.shape[-2:])
        out.append(image[:, top : top + SIDE, left : left + SIDE])
    return torch.stack(out)


def clicks(count: int) -> list[list[Prompt]]:
    """One point an image, within the middle half."""
    places = (0.25 + 0.5 * torch.rand(count, 2, generator=generator("lab-pgd", "clicks"))) * SIDE
    return [[point(float(x), float(y))] for x, y in places]


def attack(
    segmenter: Segmenter, images: Tensor, prompts: list[list[Prompt]], first: int, *, steps: int, batch: int
) -> tuple[float, list[float]]:
    """Seconds, and the IoU of each image's mask with its clean one."""
    begun, delivered = time.perf_counter(), []
    for start in range(0, len(images), batch):
        some = slice(start, start + batch)
        seeds = list(range(first + start, first + start + len(images[some])))
        result = PGD(steps=steps).run(segmenter, images[some], prompts[some], threat=Threat(), seeds=seeds)
        delivered.append(result.images)
    seconds = time.perf_counter() - begun
    left = []
    for picture, clean, asked in zip(torch.cat(delivered), images, prompts, strict=True):
        after = segmenter.predict(from_uint8(picture[None]), [asked])[0].masks
        left.append(float(iou(after, segmenter.predict(clean[None], [asked])[0].masks)))
    return seconds, left


def best_batch(segmenter: Segmenter, images: Tensor, prompts: list[list[Prompt]], largest: int) -> dict[int, float]:
    """Seconds a step and image at 1, 2, 4, ... images, until it grows by a tenth."""
    found: dict[int, float] = {}
    count = 1
    while count <= min(largest, len(images)):
        attack(segmenter, images[:count], prompts[:count], 0, steps=1, batch=count)
        begun = time.perf_counter()
        PGD(steps=4).run(segmenter, images[:count], prompts[:count], threat=Threat())
        found[count] = (time.perf_counter() - begun) / 4 / count
        if found[count] > 1.1 * min(found.values()):
            break
        count *= 2
    return found


def main() -> int:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lab-b")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--slices", type=int, default=4, help="turns of the two arms")
    parser.add_argument("--largest", type=int, default=32)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--autocast", action="store_true", help="the second arm in bfloat16: is the attack as strong?")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    before, after = load(args.model, attention="official"), load(args.model)
    after.autocast = torch.bfloat16 if args.autocast else None
    images, prompts = cuts(args.images), clicks(args.images)
    speeds = best_batch(after, images, prompts, args.largest)
    batch = min(speeds, key=lambda n: speeds[n])
    arms = {"before": (before, 1), "after": (after, batch)}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    left: dict[str, list[float]] = {name: [] for name in arms}
    size = -(-args.images // args.slices)
    for turn, start in enumerate(range(0, args.images, size)):
        some = slice(start, start + size)
        for name, (segmenter, count) in list(arms.items())[:: 1 if turn % 2 else -1]:
            spent, scores = attack(segmenter, images[some], prompts[some], start, steps=args.steps, batch=count)
            seconds[name].append(spent)
            left[name] += scores
    found: dict[str, Any] = {
        "model": args.model, "images": args.images, "steps": args.steps, "side": SIDE, "cores": os.cpu_count(),
        "threads": torch.get_num_threads(), "batch": batch, "autocast": args.autocast,
        "seconds_a_step_and_image": {n: round(s, 4) for n, s in speeds.items()},
        "images_per_second": {name: round(args.images / sum(s), 4) for name, s in seconds.items()},
        "ratio": round(statistics.median(b / a for b, a in zip(seconds["before"], seconds["after"], strict=True)), 3),
        "iou_left": {name: round(statistics.mean(s), 4) for name, s in left.items()},
    }  # fmt: skip
    text = json.dumps(found, indent=1)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
