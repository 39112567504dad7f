"""RGA's rule for regions that overlap, which its paper leaves open: first, small-first, confident-first, side by side.

    python benchmarks/rga_overlap.py --data ../shared/data/eval

The rule says which of two overlapping small masks is painted first, so it changes nothing in an image whose dilated
small masks do not overlap. On lab-b the published bound for small (a square of a tenth of the shorter side) leaves next
to none of those, so it is doubled here (--grid-rate), and how many images overlap at the published one is counted too.
Of each set the images are looked at in turn, up to --look, until --limit of them have such an overlap; those alone are
attacked, and how many were passed over is written beside. On lab-b, eps 8/255, 40 steps;
IoU with ground truth of `uad` prompts (first 4 masks) on the delivered PNG. Paired differences between the rules with
intervals over images, every pair on a level that allows for their number. Each image is a line of --work as soon as it
is done: stopped and typed again, it goes on. A minute of one core an image.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

# Before torch is imported: threads that spin while they wait starve the jobs beside them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from attack_jobs import OPTIONS, PROMPTING, SETS
from evidence import Column, column, contrast, minus, of
from rich.console import Console
from rich.table import Table

from redsam import registry
from redsam.attacks.region_map import DILATIONS, GRID_RATE, PUBLISHED_SIDE, REACH, Overlap, dilate
from redsam.attacks.rga import RGA
from redsam.bench.files import png_bytes, write_bytes
from redsam.bench.statistics import LEVEL
from redsam.bench.store import read_records
from redsam.data import Dataset, open_data, read_image
from redsam.metrics import iou
from redsam.models import load
from redsam.models.automatic import MaskSet, automatic_masks
from redsam.models.base import Segmenter
from redsam.seeds import stable_seed
from redsam.threat import Threat
from redsam.types import Scene

RULES: tuple[Overlap, ...] = get_args(Overlap)
STEPS, EPS = 40, 8 / 255


def overlaps(found: MaskSet, grid_rate: float = GRID_RATE) -> int:
    """Pixels that at least two dilated small masks claim."""
    height, width = found.masks.shape[1:]
    areas = found.masks.sum((1, 2))
    small = found.masks[(areas > 0) & (areas <= max(int(grid_rate * min(height, width)), 1) ** 2)]
    radius = round(REACH * DILATIONS * max(height, width) / PUBLISHED_SIDE)
    return int((dilate(small, radius).sum(0) > 1).sum()) if len(small) else 0


def attacked(segmenter: Segmenter, scene: Scene, *, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """IoU with ground truth of every test prompt, clean and under each rule."""
    sample = registry.create("protocol", "uad", **PROMPTING)(scene, seed=0)
    masks = sample.masks.to(segmenter.device)

    def answer(image: torch.Tensor) -> list[float]:
        return list(iou(segmenter.predict(image[None], [sample.prompts], select="single")[0].masks, masks).tolist())

    out: dict[str, Any] = {"kinds": [p.kind for p in sample.prompts], "clean": answer(scene.image)}
    for rule in RULES:
        attack = RGA(steps=args.steps, overlap=rule, select="single", grid_rate=args.grid_rate, **OPTIONS["rga"])
        result = attack.run(
            segmenter, scene.image[None], [sample.prompts], threat=Threat(eps=EPS), seeds=[stable_seed(0, scene.id)]
        )
        path = folder / rule / f"{scene.id}.png"
        write_bytes(path, png_bytes(result.images[0]))
        out[rule] = answer(read_image(path))
    return out


def lines(segmenter: Segmenter, data: Dataset, path: Path, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One line an image looked at, those of an earlier call first; new ones are appended to `path`."""
    options = OPTIONS["rga"]
    done = {line["sample"]: line for line in read_records(path)}
    if done:  # without a line that was cut short
        write_bytes(path, "".join(json.dumps(line) + "\n" for line in done.values()).encode())
    hits = 0
    for i in range(len(data)):
        if hits == args.limit:
            return
        line = done.get(data.ids[i])
        if line is None:
            scene = data[i]
            found = automatic_masks(
                segmenter, scene.image, points_per_side=options["grid"], pred_iou_thresh=options["pred_iou_thresh"],
                stability_score_thresh=options["stability_score_thresh"],
            )  # fmt: skip
            line = {"sample": scene.id, "masks": len(found), "overlap": overlaps(found, args.grid_rate)}
            line["overlap_as_published"] = overlaps(found)
            if line["overlap"] and len(scene.masks):
                line |= attacked(segmenter, scene, args=args, folder=path.with_suffix(""))
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        hits += "clean" in line
        yield line


def compare(looked: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean IoU of each rule, and the paired differences of every two."""
    used = [line for line in looked if "clean" in line]
    columns: dict[str, Column] = {}
    for name in ("clean", *RULES):
        records = [
            {"sample": line["sample"], "status": "ok",
             "prompts": [{"kind": k, "iou": v} for k, v in zip(line["kinds"], line[name], strict=True)]}
            for line in used
        ]  # fmt: skip
        columns[name] = column(records, of("iou"))
    pairs = list(combinations(RULES, 2))
    level = 1 - (1 - LEVEL) / len(pairs)
    out: dict[str, Any] = {"looked_at": len(looked), "images": len(used), "level": level, "miou": {}, "differences": []}
    out["overlap_as_published"] = sum(line.get("overlap_as_published", 0) > 0 for line in looked)
    if not used:
        return out
    for name, values in columns.items():
        out["miou"][name] = sum(v for v, _ in values.values()) / sum(n for _, n in values.values())
    for one, other in pairs:
        found = contrast(f"{one} minus {other}", [columns[one], columns[other]], minus, level=level)
        known = found.lo is not None and found.hi is not None
        verdict = "undecided" if not known or found.lo <= 0 <= found.hi else other if found.lo > 0 else one
        out["differences"].append(
            {"of": found.name, "value": found.value, "lo": found.lo, "hi": found.hi, "stronger": verdict}
        )
    return out


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lab-b")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/eval"))
    parser.add_argument("--look", type=int, default=50, help="images a set that are looked at, evenly spaced")
    parser.add_argument("--limit", type=int, default=10, help="images a set that are attacked")
    parser.add_argument("--grid-rate", type=float, default=0.2, help="published: 0.1")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--work", type=Path, default=Path("build/rga-overlap"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/rga_overlap.json"))
    args = parser.parse_args()
    segmenter = load(args.model, device=args.device)
    looked = []
    for part in SETS:
        found = list(lines(segmenter, open_data(args.data / part).limit(args.look), args.work / f"{part}.jsonl", args))
        looked += [line | {"sample": f"{part}/{line['sample']}"} for line in found]
    told = compare(looked)
    table = Table("difference in mIoU", "value", "interval", "stronger", title=f"{told['images']} images")
    for d in told["differences"]:
        ends = "too few images" if d["lo"] is None else f"{d['lo']:.4f}, {d['hi']:.4f}"
        table.add_row(d["of"], f"{d['value']:.4f}", ends, d["stronger"])
    Console().print(table)
    whole = {"command": "python benchmarks/rga_overlap.py", "model": segmenter.name, "steps": args.steps, "eps": EPS,
             "grid_rate": args.grid_rate, "options": OPTIONS["rga"], "prompting": PROMPTING, "sets": SETS, **told,
             "lines": looked}  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
