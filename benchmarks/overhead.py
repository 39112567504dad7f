"""What an audit costs beyond its gradients: its time over that of a bare gradient loop on the same images and steps.

The bare loop is what anybody would write: encode, decode, loss, backward, sign step, clamp; images already in memory,
nothing read, checked, rounded, predicted, measured or written. The audit does all of that: it reads the images,
measures the clean model, attacks, writes and syncs PNGs and records, reads them back, predicts, and does statistics.
Both run in turn, so that a busy machine disturbs both alike; the median of the paired ratios is printed, once in wall
time and once in CPU time of this process, which other processes disturb less.

    python benchmarks/overhead.py                     # lab-b, PGD-40 at 1, 2, 4 and 8/255, bundled photographs
    python benchmarks/overhead.py --model tiny --steps 10 --images 3 --levels 8
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from redsam.bench import Preset, Trial, audit
from redsam.bench.presets import BOX, POINT, linf
from redsam.data import Dataset, open_data
from redsam.models import load, tiny
from redsam.models.base import Segmenter
from redsam.objectives import vanish
from redsam.registry import create
from redsam.types import Sample

LIMIT = 1.10


def bare(segmenter: Segmenter, samples: list[Sample], steps: int, eps: float) -> None:
    """Sign gradient descent on every sample, prompts of an image together; nothing else."""
    for sample in samples:
        clean = sample.image[None].to(segmenter.device)
        x = (clean + eps * (2 * torch.rand_like(clean) - 1)).clamp(0, 1)
        for _ in range(steps):
            x.requires_grad_(True)
            logits = segmenter.decode(segmenter.encode(x), [sample.prompts]).logits()[0]
            loss = vanish(logits, logits > 0, progress=1.0).mean()
            (gradient,) = torch.autograd.grad(loss, x)
            with torch.no_grad():
                x = (x - eps / 4 * gradient.sign()).clamp(clean - eps, clean + eps).clamp(0, 1)


def timed(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """(wall, CPU) seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(segmenter: Segmenter, data: Dataset, *, steps: int, levels: list[int], repeats: int) -> dict[str, object]:
    """Medians over `repeats` pairs, and the ratios."""
    preset = Preset(
        name="overhead",
        summary="",
        protocols=(POINT, BOX),
        trials=(Trial(attack="pgd", args={"steps": steps}, threats=linf(*levels)),),
    )
    protocols = [create("protocol", name, **args) for name, args in preset.protocols]
    samples = [sample for p in protocols for i in range(len(data)) if (sample := p(data[i], seed=0)).prompts]

    def whole() -> None:
        with tempfile.TemporaryDirectory() as out:
            audit(segmenter, data, out=Path(out), preset=preset)

    def loops() -> None:
        for level in levels:
            bare(segmenter, samples, steps, level / 255)

    bare(segmenter, samples[:1], 2, 8 / 255)  # warm up: allocator, kernels
    runs: list[dict[str, tuple[float, float]]] = []
    for i in range(repeats):
        jobs: list[tuple[str, Callable[[], None]]] = [("audit", whole), ("bare", loops)]
        runs.append({name: timed(job, segmenter.device) for name, job in (jobs if i % 2 else reversed(jobs))})
    out: dict[str, object] = {
        "model": segmenter.name,
        "device": segmenter.device.type,
        "data": data.name,
        "images": len(data),
        "prompts": sum(len(s.prompts) for s in samples),
        "steps": steps,
        "levels": levels,
        "repeats": repeats,
        "threads": torch.get_num_threads(),
    }
    for index, clock in enumerate(("wall", "cpu")):
        for name in ("audit", "bare"):
            out[f"{name}_{clock}_seconds"] = round(statistics.median(r[name][index] for r in runs), 3)
        out[f"ratio_{clock}"] = round(statistics.median(r["audit"][index] / r["bare"][index] for r in runs), 4)
    return out


def main() -> int:
    """Print one JSON object; exit code 1 when the ratio of the chosen clock is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lab-b", help="a model as redsam audit takes it, or 'tiny'")
    parser.add_argument("--data", default="demo")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--levels", type=int, nargs="+", default=[1, 2, 4, 8], help="linf eps in 255ths, as the table")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--limit", type=float, default=LIMIT)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu where other work runs beside")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    segmenter = tiny("sam", image_size=256) if args.model == "tiny" else load(args.model, device=args.device)
    data = open_data(args.data).limit(args.images)
    found = measure(segmenter, data, steps=args.steps, levels=args.levels, repeats=args.repeats)
    print(json.dumps(found | {"limit": args.limit}, indent=1))
    return 0 if float(str(found[f"ratio_{args.clock}"])) <= args.limit else 1


if __name__ == "__main__":
    sys.exit(main())
