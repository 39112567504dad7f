"""What a CUDA device gives an attack step: time, memory, and the share of what the device can do at all.

For SAM-B, L and H and SAM 2 tiny and base-plus, random weights and random images of 1024 x 1024, one prompt each:
- redsam's step at batch 1, 2, 4, ... to the largest that fits, in float32, and with the model in bfloat16;
- at batch 1 what a user writes today (transformers' SamModel and backward, float32) and redsam with its switches off;
- for every way of exact attention the step at batch 1, so that the rule of redsam.models.attention can be checked;
- at batch 1 the encoder's part of the step, kernel by kernel and replayed as a CUDA graph: what launching costs.
Time is that of device events, the median of several after a warm-up. The floor of a step is the larger of its matrix
operations (counted by PyTorch on the plain path: forward, and backward with regard to the image) over the measured
matrix rate, and of its least bytes (weights twice, what each block reads and writes) over the measured bandwidth. The
achieved share is floor / time. Last, PGD-40 on SAM-B over 64 images at the best batch, carried on to 1,000.

    python benchmarks/gpu.py --out benchmarks/results/gpu.json     # one CUDA device, under 8 minutes
    python benchmarks/gpu.py --device cpu --tiny                   # whether it runs, on a CPU
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from gpu_floor import ceilings, operations, timed
from random_sam import moved, network, picture, places, with_redsam, with_transformers
from torch import Tensor, nn

from redsam.bench.memory import out_of_memory, peak_mb, release, reset_peak
from redsam.models import load, tiny
from redsam.models.attention import Attention, use
from redsam.models.base import Segmenter

MODELS = ("b", "l", "h", "2t", "2b+")
WAYS: tuple[Attention, ...] = ("official", "folded", "blocked", "flex")
LARGEST = 64
# Bars of the claims: at batch 1 against what a user writes, at the best batch against the device, seconds for 1,000.
BARS = {"time": 0.5, "memory": 0.35, "share": 0.4, "pgd_seconds": 300.0}


class Clock:
    """Stops at --minutes: what is left out is named, never guessed."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes
        self.left_out: list[str] = []

    def over(self, what: str) -> bool:
        """Whether time is up; `what` is then noted as not measured."""
        late = time.monotonic() > self.end
        if late:
            self.left_out.append(what)
        return late


def build(size: str, device: str, dtype: torch.dtype, small: bool) -> Segmenter:
    """A random model behind redsam's interface."""
    if small:
        model = tiny("sam2" if size.startswith("2") else "sam").model
        return load(model, device=device, dtype=dtype, name=f"tiny-{size}")
    return load(network(size, device=device), device=device, dtype=dtype, name=f"random-{size}")


def fresh(device: str) -> None:
    """Give back what is unused, start a new peak."""
    release()
    reset_peak(torch.device(device))


def measured(
    step: Callable[[Tensor, Tensor], Tensor], count: int, side: int, device: str, repeats: int
) -> dict[str, Any]:
    """Seconds of a step and peak MiB; {"out_of_memory": True} where it does not fit."""
    fresh(device)
    try:
        clean = picture(side, count, device)
        seconds = timed(lambda: step(clean, clean), device, repeats)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        error.__traceback__ = None
        return {"batch": count, "out_of_memory": True}
    peak = peak_mb(torch.device(device)) if device == "cuda" else None
    return {"batch": count, "seconds": seconds, "per_image": seconds / count, "peak_mb": peak}


def sweep(
    segmenter: Segmenter, limits: dict[str, float], args: argparse.Namespace, clock: Clock, label: str
) -> list[dict[str, Any]]:
    """Batches doubled to the largest that fits, each with its floor and share."""
    flops, size = operations(segmenter, args.side)
    rate = limits["bf16_tflops" if segmenter.dtype == torch.bfloat16 else "fp32_tflops"] * 1e12
    step, rows, count = with_redsam(segmenter, places(1, args.side)), [], 1
    while count <= args.largest and not clock.over(f"{label} batch {count}"):
        row = measured(step, count, args.side, args.device, args.repeats)
        if "seconds" in row:
            floor = max(count * flops / rate, size / (limits["copy_gbs"] * 1e9))
            row |= {"tflop": round(count * flops / 1e12, 3), "floor": floor, "share": round(floor / row["seconds"], 4),
                    "of_bf16": round(count * flops / row["seconds"] / (limits["bf16_tflops"] * 1e12), 4)}  # fmt: skip
        rows.append(row)
        if "out_of_memory" in row:
            break
        count *= 2
    return rows


def one_model(size: str, limits: dict[str, float], args: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    """All that is measured of one model."""
    out: dict[str, Any] = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        if clock.over(f"{size} {name}"):
            continue
        segmenter = build(size, args.device, dtype, args.tiny)
        out[name] = sweep(segmenter, limits, args, clock, f"{size} {name}")
        if not size.startswith("2"):
            out[f"{name}, ways"] = ways(segmenter, args, clock, f"{size} {name}")
        if args.device == "cuda" and not clock.over(f"{size} {name} CUDA graph"):
            out[f"{name}, CUDA graph"] = graphs(segmenter, args)
        if dtype == torch.float32 and not size.startswith("2") and not clock.over(f"{size} peer"):
            use(segmenter.model, "official")
            model = cast(nn.Module, segmenter.model).requires_grad_(True)
            peer = with_transformers(model, places(1, args.side), backward=True)
            out["transformers (a)"] = measured(peer, 1, args.side, args.device, args.repeats)
        del segmenter
        fresh(args.device)
    first = next((r for r in out.get("float32", []) if "seconds" in r), None)
    peer_row = out.get("transformers (a)")
    if first and peer_row and "seconds" in peer_row:
        out["time_ratio"] = round(first["seconds"] / peer_row["seconds"], 3)
        out["memory_ratio"] = round(first["peak_mb"] / peer_row["peak_mb"], 3) if first["peak_mb"] else None
    return out


def ways(segmenter: Segmenter, args: argparse.Namespace, clock: Clock, label: str) -> dict[str, Any]:
    """The step at batch 1 by each way of attention; what a device or PyTorch cannot do is named."""
    found: dict[str, Any] = {}
    for way in WAYS:
        if (way == "flex" and args.device != "cuda") or clock.over(f"{label} {way}"):
            continue
        use(segmenter.model, way)
        try:
            found[way] = measured(with_redsam(segmenter, places(1, args.side)), 1, args.side, args.device, args.repeats)
        except Exception as error:  # a compiler that is not there is a result of this way
            found[way] = {"failed": f"{type(error).__name__}: {error}"[:200]}
    use(segmenter.model, "auto")
    return found


def graphs(segmenter: Segmenter, args: argparse.Namespace) -> dict[str, Any]:
    """The encoder's part of a step at batch 1, launched kernel by kernel and replayed as a CUDA graph, and the ratio of
    the two. The decoder is left out: its prompts come from the host, which a graph cannot wait for."""

    def step(x: Tensor, clean: Tensor) -> Tensor:
        leaf = x.detach().requires_grad_()
        maps = segmenter.encode(leaf).features
        return moved(x, clean, torch.autograd.grad(maps.float().square().mean(), leaf)[0])

    found: dict[str, Any] = {"launched": measured(step, 1, args.side, args.device, args.repeats)}
    try:
        still = picture(args.side, device=args.device)
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):  # PyTorch wants a few passes on another stream before it records one
            for _ in range(3):
                step(still, still)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = step(still, still)

        def replay(x: Tensor, clean: Tensor) -> Tensor:
            still.copy_(x)
            graph.replay()
            return out

        found["graph"] = measured(replay, 1, args.side, args.device, args.repeats)
        difference = (replay(still.clone(), still) - step(still, still)).abs().max()
        found["difference"] = float(difference)
    except Exception as error:  # what cannot be recorded is the answer, too
        found["graph"] = {"failed": f"{type(error).__name__}: {error}"[:200]}
    if "seconds" in found["graph"] and "seconds" in found["launched"]:
        found["ratio"] = round(found["graph"]["seconds"] / found["launched"]["seconds"], 3)
    return found


def pgd(best: int, args: argparse.Namespace) -> dict[str, Any]:
    """PGD-40 of SAM-B in bfloat16 by `redsam.attacks`, at the best batch."""
    from redsam.attacks.pgd import PGD
    from redsam.prompts import point
    from redsam.threat import Threat

    segmenter = build("b", args.device, torch.bfloat16, args.tiny)
    count = args.pgd_images
    images = picture(args.side, count)
    click = point(*places(1, args.side)[0])
    attack = PGD(steps=args.steps)
    fresh(args.device)
    attack.run(segmenter, images[:best], [[click]] * best, threat=Threat())  # warm up
    begun = time.perf_counter()
    for start in range(0, count, best):
        some = images[start : start + best]
        attack.run(segmenter, some, [[click]] * len(some), threat=Threat())
    seconds = time.perf_counter() - begun
    return {"images": count, "steps": args.steps, "batch": best, "seconds": round(seconds, 2),
            "for_1000": round(seconds / count * 1000, 1)}  # fmt: skip


def claims(found: dict[str, Any]) -> dict[str, bool]:
    """The bars that were reached, of those that were measured."""
    out = {}
    b = found["models"].get("b", {})
    if b.get("time_ratio"):
        out["step time at most 0.5 of (a)"] = b["time_ratio"] <= BARS["time"]
    if b.get("memory_ratio"):
        out["memory at most 0.35 of (a)"] = b["memory_ratio"] <= BARS["memory"]
    shares = [row["of_bf16"] for row in b.get("bfloat16", []) if "of_bf16" in row]
    if shares:
        out["at least 40 % of the bf16 rate at the best batch"] = max(shares) >= BARS["share"]
    if found.get("pgd"):
        out["PGD-40 on 1,000 images in 5 minutes"] = found["pgd"]["for_1000"] <= BARS["pgd_seconds"]
    return out


def main() -> int:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true", help="tiny models: whether it runs")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--largest", type=int, default=LARGEST, help="batch at which doubling ends")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--pgd-images", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--minutes", type=float, default=7.0, help="what does not fit is left out and named")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        print("There is no CUDA device here. Type: python benchmarks/gpu.py --device cpu --tiny", file=sys.stderr)
        return 2
    args.side = 64 if args.tiny else 1024
    torch.backends.cuda.matmul.allow_tf32 = False
    clock = Clock(args.minutes)
    limits = ceilings(args.device, args.tiny)
    name = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    found: dict[str, Any] = {"device": name, "torch": torch.__version__, "tiny": args.tiny, "ceilings": limits,
                             "models": {}}  # fmt: skip
    # SAM-B first, then what the claims ask of it, then the rest while time lasts.
    for size in sorted(args.models, key=lambda s: s != "b"):
        found["models"][size] = one_model(size, limits, args, clock)
        if size == "b" and not clock.over("PGD"):
            good = [row for row in found["models"]["b"].get("bfloat16", []) if "seconds" in row]
            if good:
                found["pgd"] = pgd(min(good, key=lambda row: row["per_image"])["batch"], args)
    found["left_out"] = clock.left_out
    found["claims"] = claims(found)
    text = json.dumps(found, indent=1)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0 if all(found["claims"].values()) or args.tiny else 1


if __name__ == "__main__":
    sys.exit(main())
