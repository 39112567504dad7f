"""What sam-autoattack costs and how strong it is: survivors only, exhaustive, and each member run by itself.

    python benchmarks/autoattack_cost.py --limit 4                    # lab-b, bundled photographs
    python benchmarks/autoattack_cost.py --data ../shared/data/eval/bsds_test --limit 20 --eps 2/255 --jobs 4

One prompt an image (each prompt attacked by an image of its own), so "per prompt" is meant literally: every delivered
image is written as PNG, read back and measured once more. For each member it prints the mean IoU with the reference,
ASR@10, its gradients, forward passes and CPU seconds, and every prompt on which sam-autoattack was weaker than some
member: in success at the threshold (must be none), and in IoU (must be none for the exhaustive run). Each (prompt,
attack) is kept below --work as soon as it is done: stopped and typed again, it goes on; --jobs prompts run side by
side. About five minutes of one core a prompt. Writes JSON (--out) and a table.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
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
from redsam.bench.files import png_bytes, read_json, safe_name, write_bytes, write_json
from redsam.bench.spec import digest
from redsam.data import open_data, read_image
from redsam.metrics import iou
from redsam.models import load, tiny
from redsam.models.base import Segmenter
from redsam.prompts import Prompt
from redsam.registry import create, get
from redsam.seeds import stable_seed
from redsam.threat import Threat
from redsam.types import to_uint8

Row = dict[str, Any]
QUICK, FULL = "survivors only", "exhaustive"


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One prompt of one image. image: 1x3xHxW. reference: bool 1xHxW."""

    name: str
    image: Tensor
    prompt: Prompt
    reference: Tensor
    seed: int


def cases(segmenter: Segmenter, args: argparse.Namespace) -> Iterator[Case]:
    """The prompts, image by image."""
    prompted = create("protocol", args.protocol, max_objects=args.objects)
    data = open_data(args.data).limit(args.limit)
    for i in range(len(data)):
        sample = prompted(data[i], seed=args.seed)
        image = sample.image[None].to(segmenter.device)
        for p, prompt in enumerate(sample.prompts):
            if args.reference == "ground-truth":
                mask = sample.masks[p : p + 1].to(segmenter.device)
            else:
                mask = segmenter.predict(image, [[prompt]])[0].masks
            seed = stable_seed(args.seed, sample.id, p)
            yield Case(name=f"{safe_name(sample.id)}.p{p}", image=image, prompt=prompt, reference=mask, seed=seed)


def attacks(args: argparse.Namespace) -> dict[str, Attack]:
    """By label: sam-autoattack as it is, exhaustive, and each of its members alone with the same options."""
    common = {"version": args.version, "steps": args.steps, "queries": args.queries}
    quick = SamAutoAttack(**common)
    return {QUICK: quick, FULL: SamAutoAttack(**common, exhaustive=True), **dict(quick.members(args.norm))}


def measure(segmenter: Segmenter, attack: Attack, threat: Threat, case: Case, path: Path) -> Row:
    """One attack on one prompt: IoU of the file, passes, CPU seconds."""
    started = time.process_time()
    result = attack.run(
        segmenter, case.image, [[case.prompt]], threat=threat, reference=[case.reference], seeds=[case.seed]
    )
    seconds = time.process_time() - started
    write_bytes(path, png_bytes(result.images[0]))
    file = read_image(path)[None].to(segmenter.device)
    spent = threat.check(to_uint8(file[0]), to_uint8(case.image[0]), where=str(path))
    after = segmenter.predict(file, [[case.prompt]])[0].masks
    return {
        "iou": float(iou(after, case.reference)), "linf": spent.linf, "l2": spent.l2, "gradients": result.gradients,
        "forwards": result.forwards, "seconds": round(seconds, 2),
    }  # fmt: skip


def work(share: int, args: argparse.Namespace) -> dict[str, dict[str, Row]]:
    """Every --jobs-th prompt from `share` on, or what is left of it: prompt -> attack -> its row."""
    if args.jobs > 1:
        torch.set_num_threads(1)
    segmenter = open_model(args)
    threat, listed = Threat(norm=args.norm, eps=Threat.parse_eps(args.eps)), attacks(args)
    folder = args.work / digest([settings(segmenter, args), open_data(args.data).fingerprint])
    out = {}
    for number, case in enumerate(cases(segmenter, args)):
        if number % args.jobs != share:
            continue
        kept = folder / f"{case.name}.json"
        rows: dict[str, Row] = read_json(kept) if kept.exists() else {}
        for place, (label, attack) in enumerate(listed.items()):
            if label not in rows:
                rows[label] = measure(segmenter, attack, threat, case, folder / str(place) / f"{case.name}.png")
                write_json(kept, rows)
        out[case.name] = rows
        print(f"{case.name}: {rows[QUICK]['iou']:.3f}", flush=True)
    return out


def open_model(args: argparse.Namespace) -> Segmenter:
    """The model that is attacked."""
    return tiny("sam", image_size=64) if args.model == "tiny" else load(args.model, device=args.device)


def settings(segmenter: Segmenter, args: argparse.Namespace) -> dict[str, Any]:
    """What the numbers depend on, apart from which prompts."""
    asked = {key: getattr(args, key) for key in ("protocol", "reference", "norm", "eps", "version", "steps", "queries")}
    return {"model": segmenter.name, "fingerprint": segmenter.fingerprint(), "data": args.data, "seed": args.seed,
            "objects": args.objects, "device": args.device, "survive": SamAutoAttack().survive, **asked}  # fmt: skip


def total(found: dict[str, dict[str, Row]]) -> dict[str, Row]:
    """By attack over all prompts."""
    rows: dict[str, Row] = {}
    for label in next(iter(found.values())):
        mine = [rows_[label] for rows_ in found.values()]
        rows[label] = {
            "miou": sum(r["iou"] for r in mine) / len(mine),
            "asr10": sum(r["iou"] <= ASR_10 for r in mine) / len(mine),
            **{key: round(sum(r[key] for r in mine), 2) for key in ("gradients", "forwards", "seconds")},
        }
    return rows


def compare(found: dict[str, dict[str, Row]]) -> dict[str, Any]:
    """Costs as shares of running all members, and every prompt on which a member alone did better."""
    rows = total(found)
    members = [label for label in rows if label not in (QUICK, FULL)]
    alone = {key: round(sum(rows[m][key] for m in members), 2) for key in ("gradients", "forwards", "seconds")}

    def weaker(mine: str, *, threshold: float) -> list[dict[str, Any]]:
        return [
            {"prompt": name, "iou": each[mine]["iou"], "member": m, "member_iou": each[m]["iou"]}
            for name, each in found.items()
            for m in members
            if each[mine]["iou"] > threshold and each[mine]["iou"] > each[m]["iou"]
        ]

    return {
        "alone": alone,
        **{f"{key}_of_all": round(rows[QUICK][key] / max(alone[key], 1e-9), 4) for key in alone},
        "weaker_at_threshold": weaker(QUICK, threshold=ASR_10),
        "weaker_in_iou": weaker(QUICK, threshold=-1.0),
        "exhaustive_weaker_in_iou": weaker(FULL, threshold=-1.0),
    }


def table(rows: dict[str, Row], title: str) -> Table:
    """For people."""
    made = Table(title=title, title_justify="left")
    for column in ("attack", "mIoU", "ASR@10", "gradients", "forwards", "CPU s"):
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
    parser.add_argument("--objects", type=int, default=1, help="at most so many objects an image")
    parser.add_argument("--protocol", default="point")
    parser.add_argument("--reference", choices=("ground-truth", "clean"), default="ground-truth")
    parser.add_argument("--norm", choices=("linf", "l2"), default="linf")
    parser.add_argument("--eps", default="8/255")
    parser.add_argument("--version", default="1")
    parser.add_argument("--steps", type=int, default=None, help="of every gradient member; default: the version's")
    parser.add_argument("--queries", type=int, default=None, help="of Square; default: the version's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--jobs", type=int, default=1, help="prompts side by side, one thread each")
    parser.add_argument("--work", type=Path, default=Path("build/autoattack-cost"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/autoattack_cost.json"))
    args = parser.parse_args()
    if args.jobs > 1:
        with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
            parts = list(pool.map(work, range(args.jobs), [args] * args.jobs))
    else:
        parts = [work(0, args)]
    found = {name: rows for part in parts for name, rows in sorted(part.items())}
    if not found:
        raise SystemExit("There is no prompt to attack.")
    segmenter, compared = open_model(args), compare(found)
    console = Console()
    console.print(table(total(found), f"{segmenter.name}, {args.norm} {args.eps}, {len(found)} prompts, "
                        f"IoU with {args.reference}"))  # fmt: skip
    console.print(json.dumps({k: len(v) if isinstance(v, list) else v for k, v in compared.items()}, indent=1))
    whole = {
        "command": "python benchmarks/autoattack_cost.py", **settings(segmenter, args), "prompts": len(found),
        "paper": get("attack", "sam-autoattack").meta["paper"],
        "members": [
            {"name": m.name, "args": dict(m.args)} for m in VERSIONS[args.version] if m.searches_in(args.norm)
        ],
        "rows": total(found), "compared": compared, "each": found,
    }  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(whole, indent=1) + "\n")
    return 1 if compared["weaker_at_threshold"] or compared["exhaustive_weaker_in_iou"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
