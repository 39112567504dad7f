"""How good the lab models are on photographs they never saw, beside the trivial answer.

    python benchmarks/lab_models.py --data ../shared/data/eval --out benchmarks/results/lab_models.json

8-bit images, one random in-mask point or one exact box per object of at least 1 % of the image, the mask picked by
predicted IoU; mean IoU against ground truth with a bootstrap interval over images. `fill` fills the box (for a point:
the best constant guess, the whole image). `correlation` is Pearson's r of predicted and true IoU. Below point 0.34 or
box 0.64 on either set a model is marked weak: not yet one to draw conclusions from.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from redsam.bench import Preset, audit
from redsam.bench.statistics import image_sums, mean_interval, resamples
from redsam.data import open_data
from redsam.models import lab_names, load
from redsam.report.verdict import BARS

SETS = ("bsds_test", "coco_panoptic_val")
CLEAN = Preset(name="clean", summary="clean point and box", protocols=(("point", {}), ("box", {})), trials=())


def records(out: Path) -> list[dict[str, Any]]:
    """Every image record of a run."""
    return [json.loads(line) for f in sorted(out.glob("records/*/samples.jsonl")) for line in f.open()]


def interval(values: list[float], owners: list[int], *, seed: int = 0) -> list[float | None]:
    """[mean, lo, hi], images resampled, prompts nested."""
    images = max(owners) + 1
    weights = resamples(images, seed=seed)
    found = mean_interval(image_sums(values, owners, images), image_sums([1.0] * len(values), owners, images), weights)
    return [round(v, 4) if v is not None else None for v in (found.value, found.lo, found.hi)]


def fill(prompt: dict[str, Any], height: int, width: int) -> float:
    """IoU of the trivial answer: the filled box; for a point the whole image."""
    if "box" not in prompt["geometry"]:
        return float(prompt["area"])
    x0, y0, x1, y1 = prompt["geometry"]["box"]
    return float(prompt["area"]) * height * width / ((x1 - x0) * (y1 - y0))


def measure(name: str, data: Path, *, device: str, limit: int | None) -> dict[str, Any]:
    """Rows of one model on both sets."""
    segmenter = load(name, device=device)
    size = sum(p.numel() for p in segmenter.model.parameters())
    rows: dict[str, Any] = {"model": Path(name).name, "parameters": size, "fingerprint": segmenter.fingerprint()}
    weak = False
    for part in SETS:
        with tempfile.TemporaryDirectory() as folder:
            audit(segmenter, open_data(data / part), preset=CLEAN, out=Path(folder), limit=limit or 0)
            found = records(Path(folder))
        for kind in ("point", "box"):
            items = [(r, p) for r in found if r["status"] == "ok" for p in r["prompts"] if p["kind"] == kind]
            ids = {s: n for n, s in enumerate(dict.fromkeys(r["sample"] for r, _ in items))}
            owners = [ids[r["sample"]] for r, _ in items]
            truth = [float(p["iou_clean_gt"]) for _, p in items]
            guess = [float(p["pred_iou_clean"]) for _, p in items]
            rows[f"{part}/{kind}"] = {
                "miou": interval(truth, owners),
                "fill": interval([fill(p, r["height"], r["width"]) for r, p in items], owners),
                "correlation": round(float(np.corrcoef(truth, guess)[0, 1]), 3),
                "prompts": len(items), "images": len(ids), "failed": sum(r["status"] == "failed" for r in found),
            }  # fmt: skip
            weak |= rows[f"{part}/{kind}"]["miou"][0] < BARS[kind]
    return rows | {"weak": weak}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="names or folders (default: every bundled model)")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/eval"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    rows = [measure(m, args.data, device=args.device, limit=args.limit) for m in args.models or lab_names(clicks=True)]
    table = Table("model", "set", "prompt", "mean IoU", "95 % interval", "trivial", "r", "n prompts / images", "")
    for row in rows:
        for part in SETS:
            for kind in ("point", "box"):
                cell = row[f"{part}/{kind}"]
                value, lo, hi = cell["miou"]
                table.add_row(
                    row["model"], part, kind, f"{value:.3f}", f"{lo:.3f} to {hi:.3f}" if lo else "-",
                    f"{cell['fill'][0]:.3f}", f"{cell['correlation']:.2f}", f"{cell['prompts']} / {cell['images']}",
                    "weak" if row["weak"] else "",
                )  # fmt: skip
    Console(width=120).print(table)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"command": "python benchmarks/lab_models.py", "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
