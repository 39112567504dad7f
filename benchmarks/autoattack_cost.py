"""What sam-autoattack costs and how strong it is: survivors only, exhaustive, and each member run by itself.

    python benchmarks/autoattack_cost.py --limit 4                    # lab-b, bundled photographs
    python benchmarks/autoattack_cost.py --data ../shared/data/eval/bsds_test --limit 20 --eps 2/255

One prompt an image (each prompt attacked by an image of its own), so "per prompt" is meant literally. For each member
it prints the mean IoU with the reference, ASR@10, its gradients, forward passes and seconds, and in how many prompts
sam-autoattack was weaker than some member: in success at the threshold (must be 0), and in IoU (must be 0 for the
exhaustive run). Writes JSON (--out) and a table.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Before torch is imported: threads that spin while they wait starve the jobs beside them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from redsam.attacks.autoattack import ASR_10, VERSIONS, SamAutoAttack
from redsam.attacks.base import Attack
from redsam.data import open_data
from redsam.metrics import iou
from redsam.models import load, tiny
from redsam.models.base import Segmenter
from redsam.prompts import Prompt
from redsam.registry import create, get
from redsam.seeds import stable_seed
from redsam.threat import Norm, Threat
from redsam.types import from_uint8

Case = tuple[Tensor, Prompt, Tensor, int]  # image 1x3xHxW, its prompt, reference 1xHxW, seed


def cases(segmenter: Segmenter, args: argparse.Namespace) -> tuple[list[Case], str]:
    """One case a prompt, and what the reference is."""
    prompted = create("protocol", args.protocol, max_objects=args.objects)
    data = open_data(args.data).limit(args.limit)
    found: list[Case] = []
    for i in range(len(data)):
        sample = prompted(data[i], seed=args.seed)
        image = sample.image[None].to(segmenter.device)
        for p, prompt in enumerate(sample.prompts):
            if args.reference == "ground-truth":
                mask = sample.masks[p : p + 1].to(segmenter.device)
            else:
                mask = segmenter.predict(image, [[prompt]])[0].masks
            found.append((image, prompt, mask, stable_seed(args.seed, sample.id, p)))
    return found, args.reference


def run(segmenter: Segmenter, attack: Attack, threat: Threat, given: Sequence[Case]) -> dict[str, Any]:
    """One attack on all cases: IoU of every prompt, passes, seconds."""
    left, gradients, forwards = [], 0, 0
    started = time.perf_counter()
    for image, prompt, mask, seed in given:
        result = attack.run(segmenter, image, [[prompt]], threat=threat, reference=[mask], seeds=[seed])
        gradients, forwards = gradients + result.gradients, forwards + result.forwards
        after = segmenter.predict(from_uint8(result.images), [[prompt]])[0].masks
        left.append(float(iou(after, mask)))
    return {
        "miou": sum(left) / len(left), "asr10": sum(v <= ASR_10 for v in left) / len(left), "gradients": gradients,
        "forwards": forwards, "seconds": round(time.perf_counter() - started, 2), "iou": left,
    }  # fmt: skip


def compare(rows: dict[str, dict[str, Any]], members: Sequence[str]) -> dict[str, Any]:
    """Costs as shares, and the prompts on which a member alone did better."""
    quick, full = rows["survivors only"], rows["exhaustive"]
    alone = {key: sum(rows[m][key] for m in members) for key in ("gradients", "forwards", "seconds")}

    def weaker(found: dict[str, Any], *, threshold: float) -> int:
        pairs = zip(found["iou"], *(rows[m]["iou"] for m in members), strict=True)
        return sum(mine > threshold and mine > min(others) for mine, *others in pairs)

    return {
        "alone": alone,
        "gradients_of_all": round(quick["gradients"] / max(full["gradients"], 1), 4),
        "forwards_of_all": round(quick["forwards"] / max(full["forwards"], 1), 4),
        "seconds_of_all": round(quick["seconds"] / max(full["seconds"], 1e-9), 4),
        "weaker_at_threshold": weaker(quick, threshold=ASR_10),
        "weaker_in_iou": weaker(quick, threshold=-1.0),
        "exhaustive_weaker_in_iou": weaker(full, threshold=-1.0),
    }


def table(rows: dict[str, dict[str, Any]], title: str) -> Table:
    """For people."""
    made = Table(title=title, title_justify="left")
    for column in ("attack", "mIoU", "ASR@10", "gradients", "forwards", "seconds"):
        made.add_column(column, justify="left" if column == "attack" else "right")
    for name, row in rows.items():
        numbers = (f"{row['miou']:.3f}", f"{row['asr10']:.0%}", str(row["gradients"]), str(row["forwards"]))
        made.add_row(name, *numbers, f"{row['seconds']:.1f}")
    return made


def main() -> int:
    """Exit code 1 when a member alone succeeds where sam-autoattack does not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lab-b", help="a model as redsam audit takes it, or 'tiny'")
    parser.add_argument("--data", default="demo")
    parser.add_argument("--limit", type=int, default=4, help="images")
    parser.add_argument("--objects", type=int, default=2, help="at most so many objects an image")
    parser.add_argument("--protocol", default="point")
    parser.add_argument("--reference", choices=("ground-truth", "clean"), default="ground-truth")
    parser.add_argument("--norm", choices=("linf", "l2"), default="linf")
    parser.add_argument("--eps", default="8/255")
    parser.add_argument("--version", default="1")
    parser.add_argument("--steps", type=int, default=None, help="of every gradient member; default: the version's")
    parser.add_argument("--queries", type=int, default=None, help="of Square; default: the version's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/autoattack_cost.json"))
    args = parser.parse_args()
    segmenter = tiny("sam", image_size=64) if args.model == "tiny" else load(args.model, device=args.device)
    norm: Norm = args.norm
    threat = Threat(norm=norm, eps=Threat.parse_eps(args.eps))
    given, reference = cases(segmenter, args)
    common = {"version": args.version, "steps": args.steps, "queries": args.queries}
    quick = SamAutoAttack(**common)
    attacks: dict[str, Attack] = {
        "survivors only": quick, "exhaustive": SamAutoAttack(**common, exhaustive=True), **dict(quick.members(norm)),
    }  # fmt: skip
    console = Console()
    rows = {}
    for name, attack in attacks.items():
        with console.status(f"{name} on {len(given)} prompts"):
            rows[name] = run(segmenter, attack, threat, given)
    found = compare(rows, [label for label, _ in quick.members(norm)])
    console.print(table(rows, f"{segmenter.name}, {threat.label}, {len(given)} prompts, IoU with {reference}"))
    console.print(json.dumps(found, indent=1))
    whole = {
        "model": segmenter.name, "data": args.data, "protocol": args.protocol, "reference": reference,
        "threat": threat.to_dict(), "prompts": len(given), "seed": args.seed, "device": args.device,
        "attack": {**common, "survive": quick.survive, "paper": get("attack", "sam-autoattack").meta["paper"]},
        "members": [
            {"name": m.name, "args": dict(m.args)} for m in VERSIONS[args.version] if m.searches_in(norm)
        ],
        "rows": rows, "compared": found,
    }  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(whole, indent=1) + "\n")
    return 1 if found["weaker_at_threshold"] or found["exhaustive_weaker_in_iou"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
