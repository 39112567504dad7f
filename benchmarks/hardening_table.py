"""The hardening table: svd on 512 numbers and every baseline, on lab-b and lab2, static and adaptive.

    python benchmarks/hardening_table.py --minutes 10 --check-every 40 --objects 2 --baseline-limit 20 --jobs 4

Every variant is trained for the same minutes on pool photographs, by the same loop, attacks and seed (those with a
course in hardening_jobs.VARIANTS by their own); then 100 images (50 a set, none trained on) meet six attacks at 8/255:
with images made on the undefended model (static) and with images made through the hardened weights (adaptive;
--baseline-limit: on so many of them for variants that no claim is about). IoU is with the annotation on the delivered
PNG; intervals are 95 % over images, differences to the undefended model paired by image. The claim: mean IoU over the
six attacks up by at least 15 points or 15 % of the undefended, clean IoU down by at most 2 points. A verdict is "yes"
or "no" where the interval decides, else "open". Each training and each attack is resumable: stop it, type it again.
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
import torch
from hardening_jobs import (
    ATTACKS,
    MODELS,
    POOL,
    SETS,
    UNDEFENDED,
    VARIANTS,
    Job,
    attack,
    attack_jobs,
    bank,
    passes,
    photographs,
    same_by_delta,
    train,
    train_jobs,
    trained,
)  # fmt: skip
from hardening_page import markdown
from hardening_rows import beside, rows
from pages import earlier, fill, typed
from side_by_side import run_all

from redsam.tuning import Course
from redsam.tuning.hardening import FACTS

IMAGES = 100
# Attacked on every image: what the claim is about, and what holds it where the attacker does not know it.
CLAIMED = {"lab-b": ("svd", "lora-long", "lora-hard", "svd-encoder-long"), "lab2": ("svd", "svd-fast")}
MARKER = "hardening"
COMMAND = "python benchmarks/hardening_table.py"


def work_on(job: Job, args: argparse.Namespace) -> None:
    """One job in a process of its own."""
    if job.kind == "train":
        train(job, photographs(args.pool, args.pool_sets, args.pool_limit), course(args), work=args.work,
              device=args.device)  # fmt: skip
    else:
        there = [v for v in args.variants if (trained(args.work, job.model, v) / FACTS).exists()]
        every = (UNDEFENDED, *CLAIMED.get(Path(job.model).name, ("svd",)))
        limit = args.limit if job.source in every else args.baseline_limit or args.limit
        attack(job, there, photographs(args.data, args.sets, limit), work=args.work, device=args.device,
               batch=args.batch, objects=args.objects)  # fmt: skip


def course(args: argparse.Namespace) -> Course:
    """The same for every variant; nothing ends before its budget, so that costs match."""
    return Course(steps=args.steps, minutes=args.minutes, batch=args.train_batch, patience=0,
                  check_every=args.check_every, held_out=args.held_out)  # fmt: skip


def command(args: argparse.Namespace) -> str:
    """The command whose table this is."""
    usual = vars(parse([]))
    names = ("models", "variants", "attacks", "minutes", "steps", "train_batch", "check_every", "held_out", "sets",
             "limit", "baseline_limit", "objects")  # fmt: skip
    return f"{typed(COMMAND, args, {name: usual[name] for name in names})} --jobs 4"


def run(todo: Sequence[Job], args: argparse.Namespace) -> list[str]:
    """Run the jobs; what went wrong, in words."""
    return run_all(todo, partial(work_on, args=args), name=str, jobs=args.jobs, threads=args.threads)


def facts_of(args: argparse.Namespace) -> dict[tuple[str, str], dict[str, Any]]:
    """hardening.json of every model and variant that is trained."""
    files = {(Path(m).name, v): trained(args.work, m, v) / FACTS for m in args.models for v in args.variants}
    return {key: json.loads(file.read_text()) for key, file in files.items() if file.exists()}


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--attacks", nargs="+", default=list(ATTACKS), choices=list(ATTACKS))
    parser.add_argument("--minutes", type=float, default=20.0, help="training of each variant")
    parser.add_argument("--steps", type=int, default=None, help="training steps instead of, or beside, minutes")
    parser.add_argument("--train-batch", type=int, default=8)
    parser.add_argument("--check-every", type=int, default=100)
    parser.add_argument("--held-out", type=int, default=24)
    parser.add_argument("--pool", type=Path, default=Path("../shared/data/pool"))
    parser.add_argument("--pool-sets", nargs="+", default=list(POOL))
    parser.add_argument("--pool-limit", type=int, default=None)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/eval"))
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--limit", type=int, default=IMAGES, help="images of all sets together")
    parser.add_argument("--baseline-limit", type=int, default=None, help="of them, for the baselines' adaptive attacks")
    parser.add_argument("--sources", nargs="+", default=None, help="attack these only: undefended or variants")
    parser.add_argument("--objects", type=int, default=4, help="of an image, each asked by a point and a box")
    parser.add_argument("--work", type=Path, default=Path("build/hardening-table"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/hardening_table.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/hardening.md"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of all jobs together")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--plan", action="store_true", help="print the jobs and what they cost, and stop")
    parser.add_argument("--keep", action="store_true", help="rows of --out whose models are no longer in --work, too")
    parser.add_argument("--stage", choices=("all", "train", "attack", "collect"), default="all")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, attack, tabulate: whatever is not there yet."""
    args = parse(argv)
    trainings = train_jobs(args.models, args.variants)
    attacks = attack_jobs(args.models, args.variants, args.attacks)
    if args.plan:
        gradients_ = sum(passes(j, args.limit) for j in attacks)
        minutes = sum(VARIANTS[j.source].course.get("minutes", args.minutes) for j in trainings)
        print(f"{len(trainings)} trainings: {minutes / 60:.1f} hours of one core; {len(attacks)} attacks: "
              f"{gradients_:,} gradients at most")  # fmt: skip
        return
    wrong = run(trainings, args) if args.stage in ("all", "train") else []
    if args.stage in ("all", "attack"):
        facts = facts_of(args)
        ready = [
            j for j in attacks
            if (j.source == UNDEFENDED or (Path(j.model).name, j.source) in facts)
            and (args.sources is None or j.source in args.sources)
        ]  # fmt: skip
        wrong += run(ready, args)
    if args.stage == "train":
        sys.exit(bool(wrong))
    table = rows(bank(args.work), facts_of(args), [Path(m).name for m in args.models])
    paths = {Path(m).name: m for m in args.models}
    for row in table:
        if row["variant"] != UNDEFENDED:
            row["delta"] = same_by_delta(args.work, paths[row["model"]], row["variant"], args.device)
    if args.keep:
        before = earlier(args.out, {"limit": args.limit, "minutes": args.minutes})
        table = beside(table, before.get("rows", []))
    told = (
        f"{args.limit} images of {' and '.join(args.sets)}, up to {args.objects} objects each; "
        f"minutes of training beside each; printed by `{command(args)}`."
    )
    text = markdown(table, wrong, told)
    print(text)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    told_json = {"command": command(args), "limit": args.limit, "minutes": args.minutes, "rows": table,
                 "not_run": wrong}  # fmt: skip
    args.out.write_text(json.dumps(told_json, indent=1) + "\n")
    fill(args.page, MARKER, text)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
