"""One PGD step on SAM-B at 1024 x 1024 on a CPU: time and peak memory beside what others do, and 64 prompts beside one.

Peers, each with one prompt: transformers' `SamModel` and `loss.backward()`, as a user writes it (a); the same with the
gradient of the image alone (a, frozen: no weight gradients); Meta's segment_anything with its modules called past
no_grad (b); torchattacks' PGD on a closure (c). Each arm runs in a process of its own, arms take turns, and a ratio is
the median of the paired ones. Memory is the highest resident size of the process less its size with the model loaded.
Random weights: neither number depends on them. Where redsam and (a) start from the same image, their gradients are
compared first (share of pixels that step to the other side). redsam's command line and workers keep the memory they
have freed (redsam.heap); the arms "memory given back" and "memory kept" tell what of a ratio that is.

    python benchmarks/step_cpu.py --out benchmarks/results/step_cpu.json     # four cores: about 15 minutes, 9 GB
    python benchmarks/step_cpu.py --side 256 --depth 2 --repeats 1 --steps 1  # whether it runs: a minute
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

REDSAM, MANY = "redsam", "redsam, 64 prompts"
ARMS = {
    REDSAM: 1,
    MANY: 64,
    "redsam, switches off": 1,
    "redsam, memory given back": 1,
    "redsam, 64 prompts, memory given back": 64,
    "transformers (a)": 1,
    "transformers (a), memory kept": 1,
    "transformers (a), frozen": 1,
    "segment_anything (b)": 1,
    "torchattacks (c)": 1,
}
PEER = "transformers (a)"
TIME_LIMIT, MEMORY_LIMIT, MANY_LIMIT = 0.8, 0.5, 1.3


def child(arm: str, side: int, depth: int | None, steps: int) -> dict[str, Any]:
    """One arm: a step to warm up, then `steps` timed ones."""
    import random_sam as make
    import torch

    from redsam import heap
    from redsam.bench.memory import held, peak_mb

    if arm.endswith("kept") or (arm.startswith("redsam") and not arm.endswith("back")):
        heap.keep()
    clicks = make.places(ARMS[arm], side)
    if arm.startswith("redsam"):
        step = make.with_redsam(make.redsam_model("b", official=arm.endswith("off"), side=side, depth=depth), clicks)
    elif arm.startswith("segment_anything"):
        step = make.with_meta(clicks, side=side, depth=depth)
    else:
        model = make.network("b", side=side, depth=depth)
        if arm.startswith("torchattacks"):
            step = make.with_torchattacks(model.requires_grad_(False), clicks)
        else:
            frozen = "frozen" in arm
            step = make.with_transformers(model.requires_grad_(not frozen), clicks, backward=not frozen)
    clean = make.picture(side)
    device = torch.device("cpu")
    before = (held(device) or 0) / 2**20
    x = step(clean, clean)
    first = (x - clean).sign().flatten()[:: max(1, x.numel() // 4096)].int().tolist()
    wall, cpu = [], []
    for _ in range(steps):
        start, spent = time.perf_counter(), time.process_time()
        x = step(x, clean)
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - spent)
    return {
        "wall": statistics.median(wall), "cpu": statistics.median(cpu), "memory_mb": (peak_mb(device) or 0.0) - before,
        "loaded_mb": before, "threads": torch.get_num_threads(), "signs": first,
    }  # fmt: skip


def run(arm: str, args: argparse.Namespace) -> dict[str, Any]:
    """One arm in a fresh process."""
    command = [sys.executable, __file__, "--arm", arm, "--side", str(args.side), "--steps", str(args.steps)]
    if args.depth:
        command += ["--depth", str(args.depth)]
    env = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    if args.threads:
        env["OMP_NUM_THREADS"] = str(args.threads)
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode != 0:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def summary(runs: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Medians of each arm, and redsam's paired ratios."""
    out: dict[str, Any] = {"arms": {}, "ratios": {}}
    for arm in runs[0]:
        good = [one[arm] for one in runs if "failed" not in one[arm]]
        if not good:
            out["arms"][arm] = runs[0][arm]
            continue
        out["arms"][arm] = {
            key: round(statistics.median(g[key] for g in good), 3) for key in ("wall", "cpu", "memory_mb", "loaded_mb")
        } | {"n": len(good)}
        if arm != REDSAM:
            out["ratios"][arm] = {
                key: round(statistics.median(a / b for a, b in pairs), 3)
                for key in ("wall", "cpu", "memory_mb")
                if (pairs := _pairs(runs, arm, key))
            }
    ours, theirs = (runs[0].get(arm, {}).get("signs") for arm in (REDSAM, PEER))
    if ours and theirs:
        out["other_side"] = round(sum(a != b for a, b in zip(ours, theirs, strict=True)) / len(ours), 5)
    return out


def _pairs(runs: list[dict[str, dict[str, Any]]], arm: str, key: str) -> list[tuple[float, float]]:
    """(redsam, the other) of each turn; for redsam's own 64 prompts the other way round, as the claim is put."""
    both = [(one[REDSAM][key], one[arm][key]) for one in runs if key in one[REDSAM] and key in one[arm]]
    return [(b, a) for a, b in both] if arm == MANY else both


def verdicts(found: dict[str, Any], clock: str) -> dict[str, bool]:
    """The three claims."""
    ratios = found["ratios"]
    out = {}
    if PEER in ratios:
        out[f"time at most {TIME_LIMIT} of (a)"] = ratios[PEER][clock] <= TIME_LIMIT
        out[f"memory at most {MEMORY_LIMIT} of (a)"] = ratios[PEER]["memory_mb"] <= MEMORY_LIMIT
    if MANY in ratios:
        out[f"64 prompts at most {MANY_LIMIT} of one"] = ratios[MANY][clock] <= MANY_LIMIT
    return out


def main() -> int:
    """Print one JSON object; exit code 1 when a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--depth", type=int, default=None, help="fewer blocks than SAM-B's twelve, to try the script")
    parser.add_argument("--steps", type=int, default=2, help="timed steps in a process, after one that warms up")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu where other work runs beside")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--arm", default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.arm:
        print(json.dumps(child(args.arm, args.side, args.depth, args.steps)))
        return 0
    runs: list[dict[str, dict[str, Any]]] = []
    for turn in range(args.repeats):
        names = args.arms if turn % 2 == 0 else args.arms[::-1]
        runs.append({name: run(name, args) for name in names})
        print(f"turn {turn + 1} of {args.repeats}", file=sys.stderr)
    found = {"side": args.side, "depth": args.depth or 12, "repeats": args.repeats, "steps": args.steps,
             "cores": os.cpu_count(), "clock": args.clock} | summary(runs)  # fmt: skip
    found["claims"] = verdicts(found, args.clock)
    text = json.dumps(found, indent=1)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0 if all(found["claims"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
