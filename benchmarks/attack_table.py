"""The attack table and the published claims: every attack that transfers, crafted on lab-b, shown to all lab models.

    python benchmarks/attack_table.py --jobs 4

25 images each of bsds_test and coco_panoptic_val, eps 8/255, 40 steps, `uad` prompts on the first 4 masks, IoU against
ground truth on the delivered PNG; the claims' own runs on 8 images each, score attacks on 5.
Options that are not an attack's own stand in
attack_jobs.py, the claims in claims.py. Each (attack, set) is a run of its own below --work: it can be stopped and
typed again, and --jobs of them run side by side. Writes rows and claims as JSON (--out) and both as tables between the
markers of a page (--page). --plan prints the jobs and what they cost; --collect tabulates what is finished and runs
nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

# Before torch is imported: threads that spin while they wait starve the jobs beside them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from attack_jobs import CLEAN, MATRIX, OPTIONS, PROMPTING, QUERIES, STEPS, TABLE, Job, bank, carry_out, jobs
from claims import CLAIMS, judge
from evidence import Bank, Field
from pages import fill
from side_by_side import run_all

from redsam.bench.statistics import image_sums, mean_interval, resamples
from redsam.models import lab_names, load
from redsam.seeds import stable_seed
from redsam.studies.uad_benchmark import transfer_rows

SOURCE, IMAGES, CLAIM_IMAGES = "lab-b", 25, 8
KINDS = ("point", "box", "all")
MARKER = "attacks"
COMMAND = "python benchmarks/attack_table.py"


def work(job: Job, args: argparse.Namespace) -> None:
    """One job in a process of its own."""
    source, *victims = [load(name, device=args.device) for name in (args.source, *others(args))]
    carry_out(job, source, victims, data=args.data, work=args.work, batch=args.batch)


def others(args: argparse.Namespace) -> list[str]:
    """Names of the victims besides the source."""
    if args.victims is not None:
        return list(args.victims)
    return [name for name in lab_names(clicks=True) if name != args.source]


def rows(fields: Bank) -> list[dict[str, Any]]:
    """One row for each attack, victim and kind of prompt; IoU against ground truth."""
    table = [f for f in fields if f.run == TABLE]
    return [row for f in table for kind in KINDS if (row := _row(f, kind))]


def _row(field: Field, kind: str) -> dict[str, Any] | None:
    good = [r for r in field.records if r["status"] == "ok"]
    prompts = [(i, p) for i, r in enumerate(good) for p in r["prompts"] if kind in ("all", p["kind"])]
    prompts = [(i, p) for i, p in prompts if p["iou_adv_gt"] is not None]
    if not prompts:
        return None
    owner, adv = np.array([i for i, _ in prompts]), np.array([p["iou_adv_gt"] for _, p in prompts])
    clean = np.array([p["iou_clean_gt"] for _, p in prompts])
    counts = image_sums(np.ones(len(adv)), owner, len(good))
    # Every row draws the same images, whatever the attack.
    weights = resamples(len(good), seed=stable_seed("attack-table"))
    out: dict[str, Any] = {"attack": field.attack, "victim": field.victim, "prompt": kind, "sd": float(adv.std())}
    for name, values in (("miou", adv), ("asr50", adv <= 0.5), ("asr10", adv <= 0.1), ("clean", clean)):
        found = mean_interval(image_sums(values, owner, len(good)), counts, weights)
        out |= {name: found.value, f"{name}_lo": found.lo, f"{name}_hi": found.hi}
    failed = sum(r["status"] == "failed" for r in field.records)
    return out | {"n_prompts": len(prompts), "n_images": int((counts > 0).sum()), "n_failed": failed}


def markdown(found: Sequence[dict[str, Any]], claims: Sequence[dict[str, Any]], missing: Sequence[str]) -> str:
    """Both tables for people."""
    victims = sorted({r["victim"] for r in found}, key=lambda v: (v != SOURCE, v))
    by_key = {(r["attack"], r["prompt"], r["victim"]): r for r in found}
    attacks = sorted({r["attack"] for r in found}, key=lambda a: by_key.get((a, "all", SOURCE), {"miou": 1})["miou"])
    attacks.sort(key=lambda a: a != "clean")
    lines = ["mIoU \N{PLUS-MINUS SIGN} sd over prompts [95 % interval over images], ASR@50 / ASR@10; strongest on "
             f"{SOURCE} first; n: prompts / images.", "",
             "| attack | prompt | " + " | ".join(victims) + " | n |", "|---" * (len(victims) + 3) + "|"]  # fmt: skip
    for attack in attacks:
        for kind in KINDS:
            mine = [by_key.get((attack, kind, v)) for v in victims]
            known = next((r for r in mine if r), None)
            if known:
                n = f"{known['n_prompts']} / {known['n_images']}"
                lines.append("| " + " | ".join([attack, kind, *map(_cell, mine), n]) + " |")
    lines += ["", "Published, another model and data (SAM, SA-1B): mIoU, ASR@50 / ASR@10, all prompts.", ""]
    theirs = {(r["attack"], r["victim"]): r for r in transfer_rows() if r["prompt"] == "all"}
    names = list(dict.fromkeys(victim for _, victim in theirs))
    lines += ["| attack | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for attack in dict.fromkeys(a for a, _ in theirs):
        cells = [theirs[attack, v] for v in names]
        lines.append("| " + " | ".join([attack, *(f"{c['miou']:.2f}, {_rates(c)}" for c in cells)]) + " |")
    lines += ["", "| published claim | measured here [interval], claimed above | verdict |", "|---|---|---|"]
    for c in claims:
        told = [" and ".join(map(_said, group)) for group in c["groups"]]
        measured = "; or ".join(told) if told else str(c["missing"])
        lines.append(f"| {c['statement']} ({c['source']}) | {measured} | {c['verdict']} |")
    if missing:
        lines += ["", "Not run: " + "; ".join(missing) + "."]
    return "\n".join(lines)


def _said(c: dict[str, Any]) -> str:
    ends = "too few images" if c["lo"] is None else f"{c['lo']:.3f}, {c['hi']:.3f}"
    return f"{c['name']} {c['value']:.3f} [{ends}] > {c['bar']:g}"


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "\N{EN DASH}"
    ends = "" if row["miou_lo"] is None else f" [{row['miou_lo']:.2f}, {row['miou_hi']:.2f}]"
    return f"{row['miou']:.2f} \N{PLUS-MINUS SIGN} {row['sd']:.2f}{ends}, {_rates(row)}"


def _rates(row: dict[str, Any]) -> str:
    return f"{row['asr50']:.0%} / {row['asr10']:.0%}"


def plan(todo: Sequence[Job]) -> str:
    """The jobs and what they cost at most, as lines."""
    lines = [f"{'run':20} {'name':20} {'set':20} {'images':>6} {'gradients':>10} {'forwards':>10}"]
    lines += [f"{j.run:20} {j.name:20} {j.part:20} {j.limit:6} {j.passes[0]:10} {j.passes[1]:10}" for j in todo]
    total = [sum(j.passes[i] for j in todo) for i in (0, 1)]
    return "\n".join([*lines, f"{len(todo)} jobs: {total[0]} gradients and {total[1]} forwards at most"])


def run(todo: Sequence[Job], args: argparse.Namespace) -> list[str]:
    """Run the jobs, those that others wait for first; what went wrong, in words."""
    stages = ([j for j in todo if j.run == CLEAN], [j for j in todo if j.run != CLEAN])
    do = partial(work, args=args)
    return [line for stage in stages for line in run_all(stage, do, name=str, jobs=args.jobs, threads=args.threads)]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default=SOURCE)
    parser.add_argument("--victims", nargs="*", default=None, help="default: every other bundled lab model")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/eval"))
    parser.add_argument("--limit", type=int, default=IMAGES, help="images a set")
    parser.add_argument("--claim-limit", type=int, default=CLAIM_IMAGES, help="images a set of the claims' own runs")
    parser.add_argument("--only", nargs="*", default=(), help="attacks and runs by name")
    parser.add_argument("--work", type=Path, default=Path("build/attack-table"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/attack_table.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/attacks.md"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of all jobs together")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--plan", action="store_true", help="print the jobs and what they cost, and stop")
    parser.add_argument("--collect", action="store_true", help="tabulate what is finished and run nothing")
    args = parser.parse_args()
    todo = jobs(args.limit, args.claim_limit, args.only)
    if args.plan:
        print(plan(todo))
        return
    wrong = [] if args.collect else run(todo, args)
    fields = bank(args.work)
    found, claims = rows(fields), [judge(claim, fields) for claim in CLAIMS]
    text = markdown(found, claims, wrong)
    told = {"command": COMMAND, "limit": args.limit, "claim_limit": args.claim_limit, "steps": STEPS, "eps": 8 / 255,
            "options": OPTIONS, "prompting": PROMPTING, "queries": QUERIES, "matrix": MATRIX, "rows": found,
            "claims": claims, "not_run": wrong}  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(told, indent=1) + "\n")
    fill(args.page, MARKER, text)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
