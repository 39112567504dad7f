"""How well lab-ddpm knows photographs, and what purifying with it costs.

    python benchmarks/lab_ddpm.py --data ../shared/data/eval --jobs 2
    python benchmarks/lab_ddpm.py --cost

Denoising: normal noise of a known level on photographs never trained on (middle crops, values not clamped), one call of
the network at the timestep of that level, PSNR against the clean picture, means over photographs with 95 % bootstrap
intervals. Beside it the classic filters of this package, each with the setting, of a grid, that does best at that level
on other photographs of the same sets; the network was tuned on none of them. JPEG has no part in it.
Cost: seconds and peak memory of one photograph of 481 x 321, purified and with its gradient, each in a fresh process.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

# Before torch is imported: threads that spin while they wait starve the jobs beside them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from pages import fill
from torch import Tensor

from redsam.bench.statistics import difference_interval, image_sums, mean_interval, resamples
from redsam.data import open_data
from redsam.defenses import parse
from redsam.defenses.diffusion_models import BUNDLED, Denoiser, denoiser
from redsam.defenses.diffusion_tiles import canvas, enlarge, tiled
from redsam.metrics.images import psnr
from redsam.seeds import generator

SETS = ("bsds_test", "coco_panoptic_val", "lowcontrast")
LEVELS = (5, 10, 15, 25, 50)  # standard deviations in grey levels of 255
IMAGES, TUNING, CROP = 14, 2, 128
MARKER = "diffusion"
GRIDS = {
    "median": [f"median:size={s}" for s in (2, 3, 4, 5, 7)],
    "bilateral": [f"bilateral:space={s},colour={c}" for s in (1.0, 1.5, 2.5) for c in (0.05, 0.1, 0.2, 0.4, 0.8)],
    "gaussian": [f"gaussian:sigma={s}" for s in (0.4, 0.6, 0.8, 1.2, 1.8)],
    "nlm": [f"nlm:search=7,strength={s}" for s in (4, 8, 15, 25, 40, 70)],
    "tv": [f"tv:drop=0,weight={w}" for w in (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)],
}
COSTS = (
    "diffpure:large=residual,t=50,steps=4", "zip:large=residual,start=300,steps=6", "diffpure:large=residual",
    "zip:large=residual", "diffpure:t=50,steps=4",
)  # fmt: skip


def timestep(found: Denoiser, level: float) -> int:
    """The one whose noise, in grey levels of the picture behind it, is nearest."""
    return min(range(len(found.schedule)), key=lambda t: abs(noise_of(found, t) - level))


def noise_of(found: Denoiser, t: int) -> float:
    """Standard deviation of the noise of timestep t in grey levels of 255."""
    return math.sqrt((1 - found.schedule.at(t)) / found.schedule.at(t)) * 255 / 2


@torch.no_grad()
def denoised(found: Denoiser, noisy: Tensor, t: int) -> Tensor:
    """The picture the network sees behind 1x3xHxW noisy values about [0, 1]."""
    height, width = noisy.shape[-2:]
    size = canvas(height, width, tile=found.side)
    x = math.sqrt(found.schedule.at(t)) * enlarge(2 * noisy - 1, size)
    eps = tiled(partial(found.noise, found.network), size, tile=found.side)(x, t)
    return (found.schedule.guess(x, t, eps)[..., :height, :width] + 1) / 2


def middle(image: Tensor, side: int) -> Tensor:
    """3xHxW to its middle 1x3xsxs."""
    top, left = ((n - min(side, n)) // 2 for n in image.shape[-2:])
    return image[None, :, top : top + side, left : left + side]


def score(image: Tensor, guess: Tensor) -> float:
    """PSNR of what a user would save."""
    return float(psnr(guess.clamp(0, 1), image))


@torch.no_grad()
def photograph(part: str, index: int, args: argparse.Namespace, settings: dict[int, list[str]]) -> dict[str, Any]:
    """PSNR of one photograph, by level and by filter (text), the network and the noisy picture itself among them."""
    torch.set_num_threads(1)
    found = denoiser(args.model)
    image = middle(open_data(args.data / part)[index].image, args.crop)
    out: dict[str, Any] = {}
    for level in LEVELS:
        t = timestep(found, level)
        draw = torch.randn(image.shape, generator=generator("lab-ddpm", part, index, level))
        noisy = image + noise_of(found, t) / 255 * draw
        row = {"noisy": score(image, noisy), BUNDLED: score(image, denoised(found, noisy, t))}
        for text in settings[level]:
            row[text] = score(image, parse(text).purify(noisy, [generator("filter", index)]))
        out[str(level)] = row
    return out


def quality(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows by level: each way's mean PSNR with interval, and the network's lead over the best filter."""
    every = [text for grid in GRIDS.values() for text in grid]
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        # The first photographs are measured, those after them choose the filters' settings.
        tuning = [(part, args.limit + i) for part in SETS for i in range(args.tuning)]
        tried = list(pool.map(partial(_one, args=args, settings=dict.fromkeys(LEVELS, every)), tuning))
        chosen = {level: [best_of(grid, tried, level) for grid in GRIDS.values()] for level in LEVELS}
        measured = [(part, i) for part in SETS for i in range(args.limit)]
        found = list(pool.map(partial(_one, args=args, settings=chosen), measured))
    model, rows = denoiser(args.model), []
    for level in LEVELS:
        t = timestep(model, level)
        columns = {key: [r[str(level)][key] for r in found] for key in ("noisy", BUNDLED, *chosen[level])}
        best = max(chosen[level], key=lambda text: np.mean(columns[text]))
        lead = {text: interval(columns[BUNDLED], columns[text]) for text in chosen[level]}
        rows.append(
            {"level": round(noise_of(model, t), 2), "t": t + 1, "n": len(found), "best": best, "lead": lead[best]}
            | {"psnr": {key: interval(v) for key, v in columns.items()}, "leads": lead}
            | {"settings": dict(zip(GRIDS, chosen[level], strict=True))}
        )
    return rows


def best_of(grid: Sequence[str], tried: Sequence[dict[str, Any]], level: int) -> str:
    """The setting with the best mean PSNR at a level."""
    return max(grid, key=lambda text: float(np.mean([r[str(level)][text] for r in tried])))


def _one(where: tuple[str, int], args: argparse.Namespace, settings: dict[int, list[str]]) -> dict[str, Any]:
    return photograph(*where, args, settings)


def interval(values: Sequence[float], against: Sequence[float] | None = None) -> list[float | None]:
    """[mean, lo, hi] over photographs; against: of the paired difference."""
    n = len(values)
    ones, weights = np.ones(n), resamples(n, seed=0)
    a = (image_sums(values, range(n), n), ones)
    found = mean_interval(*a, weights)
    if against is not None:
        found = difference_interval(a, (image_sums(against, range(n), n), ones), weights)
    return [None if v is None else round(v, 3) for v in (found.value, found.lo, found.hi)]


def cost(text: str, model: str, gradient: bool) -> dict[str, Any]:
    """Seconds and MiB beyond what the process had before, of one photograph in a fresh process."""
    torch.set_num_threads(1)
    told = "" if model == BUNDLED or not text.startswith(("diffpure", "zip")) else f"{':,'[':' in text]}model={model}"
    purifier = parse(text + told)
    purifier.run(torch.full((1, 3, 16, 16), 0.0))  # reads the weights
    image = torch.rand(1, 3, 321, 481, generator=generator("cost")).requires_grad_(gradient)
    before, wall, busy = _peak(), time.perf_counter(), time.process_time()
    out = purifier.through(image)
    if gradient:
        out.square().sum().backward()
    busy, wall = time.process_time() - busy, time.perf_counter() - wall
    return {"purifier": text, "gradient": gradient, "seconds": round(busy, 2), "wall": round(wall, 2),
            "mib": round(_peak() - before)}  # fmt: skip


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def costs(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Every purifier, without and with gradient, one after the other."""
    rows = []
    for text in args.purifiers:
        for gradient in (False, True):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                rows.append(pool.submit(cost, text, args.model, gradient).result())
                print(json.dumps(rows[-1]), flush=True)
    return rows


def markdown(found: dict[str, Any]) -> str:
    """Both tables for people."""
    lines = []
    if rows := found.get("rows"):
        lines += [f"PSNR in dB [95 % interval], {rows[0]['n']} photographs of {', '.join(SETS)}; filters at the "
                  "setting that does best on others.", "",
                  "| noise (of 255) | t | noisy | lab-ddpm | " + " | ".join(GRIDS) + " | lead over the best filter |",
                  "|---" * (5 + len(GRIDS)) + "|"]  # fmt: skip
        for row in rows:
            cells = [row["psnr"][k] for k in ("noisy", BUNDLED, *(row["settings"][name] for name in GRIDS))]
            shown = [f"{c[0]:.2f}" if i != 1 else span(c) for i, c in enumerate(cells)]
            lines.append(f"| {row['level']:.1f} | {row['t']} | " + " | ".join(shown) + f" | {span(row['lead'])} |")
    if rows := found.get("cost"):
        lines += [
            "",
            "| purifier, one 481 x 321 photograph | s | MiB | s with gradient | MiB with gradient |",
            "|---" * 5 + "|",
        ]
        for plain, taught in zip(rows[::2], rows[1::2], strict=True):
            cells = [f"{r['seconds']:.1f} | {r['mib']}" for r in (plain, taught)]
            lines.append(f"| {plain['purifier']} | " + " | ".join(cells) + " |")
        lines += ["", "Seconds of one core; MiB beyond the loaded model."]
    return "\n".join(lines)


def span(cell: Sequence[float | None]) -> str:
    """`31.20 [30.80, 31.60]`."""
    return f"{cell[0]:.2f}" + ("" if cell[1] is None else f" [{cell[1]:.2f}, {cell[2]:.2f}]")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=BUNDLED, help="or a folder of training/train_ddpm.py")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/eval"))
    parser.add_argument("--limit", type=int, default=IMAGES, help="photographs a set")
    parser.add_argument("--tuning", type=int, default=TUNING, help="further ones a set that choose filters' settings")
    parser.add_argument("--crop", type=int, default=CROP)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--cost", action="store_true", help="only what purifying costs")
    parser.add_argument("--purifiers", nargs="*", default=list(COSTS), help="whose cost is measured")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/lab_ddpm.json"))
    parser.add_argument("--page", type=Path, default=None, help="page with the markers that the tables go between")
    args = parser.parse_args()
    found: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {}
    if args.cost:
        found["cost"] = costs(args)
    else:
        told = {k: getattr(args, k) for k in ("limit", "tuning", "crop")} | {"sets": SETS, "weights": None}
        found |= {"rows": quality(args), "settings": told | {"weights": denoiser(args.model).fingerprint}}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    text = markdown(found)
    print(text)
    if args.page:
        fill(args.page, MARKER, text)


if __name__ == "__main__":
    main()
