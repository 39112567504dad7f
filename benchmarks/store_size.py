"""A run of a million records: time and peak memory of its report, of merging it from ten runs, and of its export.

The records are made up (numbers drawn, masks of real run-length codes), one run for each of ten models: each has
`--cells` cells of `--images` images with two prompts, and the clean and changed pictures of the first `--pictures`.
Every step runs in a process of its own, whose peak memory is the operating system's figure for it.

    python benchmarks/store_size.py --work /tmp/store-size            # 10 runs x 20 cells x 5,000 images
    python benchmarks/store_size.py --work /tmp/small --cells 4 --images 100
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from redsam.bench import rle
from redsam.bench.spec import Cell, JsonDict
from redsam.bench.table import COLUMNS
from redsam.threat import Threat

RUNS = 10
SECONDS, GIGABYTES = 60, 1.0
STEPS = {
    "merge": "from redsam.cli import main; raise SystemExit(main(['merge', *{runs}, '--out', {out}]))",
    "report": "from redsam.cli import main; raise SystemExit(main(['report', {out}]))",
    "export": "from redsam.cli import main; raise SystemExit(main(['export', {out}, '--out', {out} + '.parquet']))",
}


def cell_of(run: int, number: int) -> Cell:
    """Every model has clean cells and attacks at growing budgets, with points and with boxes."""
    probe: JsonDict = {"kind": "none", "name": "none", "args": {}}
    level, protocol = divmod(number, 2)
    if level:
        probe = {"kind": "attack", "name": "pgd", "args": {"steps": 10 + level}}
    return Cell(
        model={"name": f"model-{run}", "family": "sam", "fingerprint": f"{run:016x}"},
        probe=probe,
        threat=Threat(eps=8 / 255).to_dict() if level else None,
        data={"name": "made-up", "fingerprint": "a" * 16, "ids_hash": "b" * 16},
        protocol={"name": ("point", "box")[protocol], "args": {}},
    )


def make(root: Path, run: int, cells: int, images: int, pictures: int) -> None:
    """One run as a bench leaves it, without its summary."""
    rng = np.random.default_rng(run)
    (root / "images").mkdir(parents=True)
    base = root / "images" / "image-0.png"
    Image.fromarray(rng.integers(0, 255, size=(48, 64, 3), dtype=np.uint8)).save(base)
    for i in range(1, min(images, pictures)):
        shutil.copyfile(base, root / "images" / f"image-{i}.png")
    y, x = np.mgrid[:256, :384]
    discs = [((y - 128) ** 2 + (x - 100 - 9 * k) ** 2 < (40 + 3 * k) ** 2) for k in range(16)]
    codes = rle.encode(torch.from_numpy(np.stack(discs)))
    for number in range(cells):
        cell = cell_of(run, number)
        folder = root / "records" / cell.id
        (folder / "images").mkdir(parents=True)
        (folder / "spec.json").write_text(json.dumps(cell.spec()))
        (folder / "env.json").write_text("{}")
        kind, attacked = str(cell.protocol["name"]), not cell.clean
        numbers = rng.random((images, 2, len(COLUMNS)))
        with (folder / "samples.jsonl").open("w") as file:
            for i in range(images):
                shown = attacked and i < pictures
                if shown:
                    shutil.copyfile(base, folder / "images" / f"image-{i}.png")
                prompts = [
                    {"prompt": k, "kind": kind, "object": k, "area": 0.1, "geometry": {"kind": kind}}
                    | dict(zip(COLUMNS, numbers[i, k].tolist(), strict=True))
                    | {"pred_iou_clean": 0.9, "pred_iou_adv": 0.5, "rle_gt": codes[i % 16]}
                    | {"rle_clean": codes[(i + k) % 16], "rle_adv": codes[(i + 2 * k + 1) % 16] if attacked else None}
                    for k in range(2)
                ]
                record = {"schema": 1, "cell": cell.id, "sample": f"image-{i}", "status": "ok", "reason": None,
                          "height": 256, "width": 384, "linf": 8 / 255, "l2": 9.0 + i, "l0": 90_000 + i, "psnr": 31.5,
                          "ssim": 0.8, "seconds": 1.5, "peak_mb": 600.0, "steps": 10, "loss_first": 90.0,
                          "loss_last": 3.0, "flag": None, "image": f"images/image-{i}.png" if shown else None,
                          "clean_image": f"images/image-{i}.png" if i < pictures else None,
                          "prompts": prompts}  # fmt: skip
                file.write(json.dumps(record, separators=(",", ":")) + "\n")
        (folder / "DONE").touch()


def step(name: str, runs: list[str], out: str) -> dict[str, float]:
    """Wall and CPU seconds and peak gigabytes of one command."""
    code = STEPS[name].format(runs=runs, out=repr(out))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    measured = (
        f"import resource\ntry:\n {code}\nfinally:\n print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", measured], stdout=subprocess.PIPE, text=True, check=True)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    kilobytes = int(done.stdout.split()[-1])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(wall, 2), "cpu_seconds": round(cpu, 2), "gigabytes": round(kilobytes * 1024 / 1e9, 3)}


def main() -> int:
    """Make the runs, measure, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs (8 GB for a million records)")
    parser.add_argument("--cells", type=int, default=20, help="of each run")
    parser.add_argument("--images", type=int, default=5000, help="of each cell")
    parser.add_argument("--pictures", type=int, default=50, help="images of each cell that have their pictures")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/store_size.json"))
    args = parser.parse_args()
    runs = [args.work / f"run-{i}" for i in range(RUNS)]
    for i, run in enumerate(runs):
        if not (run / "made").exists():
            shutil.rmtree(run, ignore_errors=True)
            make(run, i, args.cells, args.images, args.pictures)
            (run / "made").touch()
    joined = args.work / "all"
    shutil.rmtree(joined, ignore_errors=True)
    records = RUNS * args.cells * args.images
    size = sum(p.stat().st_size for run in runs for p in run.glob("records/*/samples.jsonl"))
    found = {name: step(name, [str(run) for run in runs], str(joined)) for name in STEPS}
    for name, one in found.items():
        aim = f" (at most {SECONDS} s, {GIGABYTES:g} GB)" if name != "export" and records >= 1_000_000 else ""
        print(f"{name}: {one['seconds']:.1f} s, {one['cpu_seconds']:.1f} s CPU, {one['gigabytes']:.2f} GB{aim}")
    told = {"command": "python benchmarks/store_size.py --work DIR", "records": records, "runs": RUNS,
            "cells": RUNS * args.cells, "images_per_cell": args.images, "bytes": size, "cores": os.cpu_count(),
            "load": os.getloadavg(), "target": {"seconds": SECONDS, "gigabytes": GIGABYTES},
            "steps": found}  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(told, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
