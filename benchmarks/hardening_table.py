"""The hardening table: svd on 512 numbers and every baseline, on lab-b and lab2, static and adaptive.

    python benchmarks/hardening_table.py --minutes 10 --check-every 40 --objects 2 --baseline-limit 50 --jobs 4

Every variant is trained for the same minutes on pool photographs, by the same loop, attacks and seed; then 100 images
(50 a set, none of them trained on) are attacked by six attacks at 8/255: with images made on the undefended model
(static) and with images made through the hardened weights (adaptive; --baseline-limit: on so many of them for variants
that no claim is about). IoU is with the annotation on the delivered PNG;
intervals are 95 % over images, differences to the undefended model paired by image. The claim: mean IoU over the six
attacks up by at least 15 points or 15 % of the undefended, clean IoU down by at most 2 points. A verdict is "yes" or
"no" where the interval decides, else "open". Each training and each attack is resumable: stop it, type it again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

# Before torch is imported: threads that spin while they wait starve the jobs beside them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
import numpy as np
import torch
from evidence import Bank, Column, Contrast, NotMeasured, column, contrast, find, minus, of, pooled
from hardening_jobs import (
    ATTACKS,
    LEVEL,
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
from pages import fill
from side_by_side import run_all

from redsam.tuning import Course
from redsam.tuning.hardening import FACTS

IMAGES = 100
POINTS, SHARE, CLEAN = 0.15, 0.15, 0.02  # what the claim asks for
CLAIMED = (UNDEFENDED, "svd", "svd-fast")  # attacked on every image
FEW = 0.05  # share of the parameters up to which they are called few
YES, NO, OPEN = "yes", "no", "open"
MISSING = "not attacked"  # by someone who knows it: said, since nothing follows from static images alone
MARKER = "hardening"
COMMAND = "python benchmarks/hardening_table.py"


def rows(fields: Bank, facts: dict[tuple[str, str], dict[str, Any]], models: Sequence[str]) -> list[dict[str, Any]]:
    """One for each model and variant that is measured, the undefended first."""
    out = []
    for model in models:
        variants = [UNDEFENDED, *(v for v in VARIANTS if (model, v) in facts)]
        for variant in variants:
            try:
                out.append(_row(fields, model, variant, facts.get((model, variant), {})))
            except NotMeasured as error:
                print(f"{model} {variant}: not measured ({error})")
    return out


def _row(fields: Bank, model: str, variant: str, told: dict[str, Any]) -> dict[str, Any]:
    clean, clean_before = (_clean(fields, model, v) for v in (variant, UNDEFENDED))
    row: dict[str, Any] = {
        "model": model, "variant": variant, "numbers": told.get("numbers", 0), "parameters": told.get("parameters", 0),
        "steps": told.get("steps"), "minutes": told.get("minutes"), "best": told.get("best"),
        "clean": _told(contrast("clean", [clean], _same)),
        "clean_change": _told(contrast("clean change", [clean, clean_before], minus)),
        "attacks": {},
    }  # fmt: skip
    for how in ("static", "adaptive"):
        known = [a for a in ATTACKS if _has(fields, model, a, UNDEFENDED, how)]
        lacking = [a for a in known if not _has(fields, model, a, variant, how)]
        if lacking or not known:  # a mean over fewer attacks than beside it would be of another thing
            if how == "static":
                raise NotMeasured(f"{how}: {', '.join(lacking) or 'no attack'}")
            row |= {how: None, f"{how}_gain": None, f"{how}_verdict": MISSING}
            row["attacks"][how] = {}
            continue
        mine, before = ([_records(fields, model, a, v, how) for a in known] for v in (variant, UNDEFENDED))
        row["attacks"][how] = {a: _told(contrast(a, [column(r, of("iou_adv_gt"))], _same))
                               for a, r in zip(known, mine, strict=True)}  # fmt: skip
        both = [pooled(mine, of("iou_adv_gt")), pooled(before, of("iou_adv_gt"))]
        gain, old = contrast(f"{how} gain", both, minus), contrast(f"{how} before", both[1:], _same)
        row[how] = _told(contrast(how, both[:1], _same))
        row[f"{how}_gain"] = _told(gain)
        row[f"{how}_bar"] = bar = min(POINTS, SHARE * old.value)
        row[f"{how}_verdict"] = judged(gain, lambda v, bar=bar: v >= bar)
    row["clean_verdict"] = judged(contrast("clean change", [clean, clean_before], minus), lambda v: v >= -CLEAN)
    return row


def judged(found: Contrast, reached: Callable[[float], bool]) -> str:
    """By the interval; "open" where it holds both answers or there are too few images for one."""
    if found.lo is None or found.hi is None:
        return OPEN
    ends = {reached(found.lo), reached(found.hi)}
    return OPEN if len(ends) == 2 else YES if ends == {True} else NO


def _clean(fields: Bank, model: str, variant: str) -> Column:
    return column(find(fields, run=model, attack="clean", victim=variant), of("iou_clean_gt"))


def _records(fields: Bank, model: str, name: str, variant: str, how: str) -> Any:
    return find(fields, run=model, attack=name, victim=variant, crafted=how)


def _has(fields: Bank, *asked: str) -> bool:
    try:
        return bool(_records(fields, *asked))
    except NotMeasured:
        return False


def _same(means: np.ndarray) -> np.ndarray:
    return means


def _told(found: Contrast) -> dict[str, Any]:
    return {"value": found.value, "lo": found.lo, "hi": found.hi, "images": found.images}


def strongest(table: Sequence[dict[str, Any]], model: str) -> dict[str, Any] | None:
    """Of the variants with few parameters the one with the largest adaptive gain that misses none of the three: no
    verdict is "no", and every value reaches its bar."""
    held = [
        r for r in table
        if r["model"] == model and r["numbers"] and r["numbers"] <= FEW * r["parameters"]
        and not {NO, MISSING} & {r["static_verdict"], r["adaptive_verdict"], r["clean_verdict"]}
        and all(r[f"{how}_gain"]["value"] >= r[f"{how}_bar"] for how in ("static", "adaptive"))
        and r["clean_change"]["value"] >= -CLEAN
    ]  # fmt: skip
    return max(held, key=lambda r: r["adaptive_gain"]["value"], default=None)


def markdown(table: Sequence[dict[str, Any]], missing: Sequence[str], told: str) -> str:
    """For people."""
    lines = [
        f"{told} Mean IoU with the annotation [95 % interval over images], eps {LEVEL}/255; images: those attacked "
        "adaptively, clean and static being on all; gain and change against "
        f"the undefended model, paired. Claim: gain of at least {POINTS * 100:.0f} points or {SHARE:.0%}, clean change "
        f"of at least {-CLEAN * 100:.0f} points; held under static / adaptive / clean.", "",
        "| model | method | numbers | clean | change | static | gain | adaptive | gain | images | claim held |",
        "|---" * 11 + "|",
    ]  # fmt: skip
    for r in table:
        first = r["variant"] == UNDEFENDED
        verdicts = "" if first else " / ".join(r[f"{k}_verdict"] for k in ("static", "adaptive", "clean"))
        cells = [r["model"], r["variant"], f"{r['numbers']:,}" if r["numbers"] else "", _span(r["clean"])]
        cells += ["" if first else _span(r["clean_change"], sign="+")]
        for how in ("static", "adaptive"):
            gain = "" if first or not r[how] else _span(r[f"{how}_gain"], sign="+")
            cells += [_span(r[how]) if r[how] else MISSING, gain]
        images = str(r["adaptive"]["images"]) if r["adaptive"] else "0"
        lines.append("| " + " | ".join([*cells, images, verdicts]) + " |")
    for how in ("static", "adaptive"):
        names = [a for a in ATTACKS if any(a in r["attacks"][how] for r in table)]
        lines += ["", f"{how.capitalize()}, attack by attack:", "", "| model | method | " + " | ".join(names) + " |",
                  "|---" * (len(names) + 2) + "|"]  # fmt: skip
        for r in table:
            found = [r["attacks"][how].get(a) for a in names]
            lines.append(
                "| " + " | ".join([r["model"], r["variant"], *("" if f is None else _span(f) for f in found)]) + " |"
            )
    for model in dict.fromkeys(r["model"] for r in table):
        best = strongest(table, model)
        said = (
            f"`{best['variant']}` ({best['numbers']:,} numbers, adaptive gain {_span(best['adaptive_gain'], sign='+')})"
            if best
            else "none of those tried"
        )
        lines += ["", f"{model}: the strongest variant of at most {FEW:.0%} of the parameters that holds: {said}."]
    deltas = [r["delta"] for r in table if r.get("delta") is not None]
    if deltas:
        lines += ["", f"Delta on a freshly loaded model against the saved folder, weights and answers equal in every "
                  f"bit: {sum(deltas)} of {len(deltas)}."]  # fmt: skip
    if missing:
        lines += ["", "Not run: " + "; ".join(missing) + "."]
    return "\n".join(lines)


def _span(found: dict[str, Any], sign: str = "") -> str:
    ends = "" if found["lo"] is None else f" [{found['lo']:{sign}.3f}, {found['hi']:{sign}.3f}]"
    return f"{found['value']:{sign}.3f}{ends}"


def work_on(job: Job, args: argparse.Namespace) -> None:
    """One job in a process of its own."""
    if job.kind == "train":
        train(job, photographs(args.pool, args.pool_sets, args.pool_limit), course(args), work=args.work,
              device=args.device)  # fmt: skip
    else:
        there = [v for v in args.variants if (trained(args.work, job.model, v) / FACTS).exists()]
        limit = args.limit if job.source in CLAIMED else args.baseline_limit or args.limit
        attack(job, there, photographs(args.data, args.sets, limit), work=args.work, device=args.device,
               batch=args.batch, objects=args.objects)  # fmt: skip


def course(args: argparse.Namespace) -> Course:
    """The same for every variant; nothing ends before its budget, so that costs match."""
    return Course(steps=args.steps, minutes=args.minutes, batch=args.train_batch, patience=0,
                  check_every=args.check_every, held_out=args.held_out)  # fmt: skip


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
    parser.add_argument("--stage", choices=("all", "train", "attack", "collect"), default="all")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, attack, tabulate: whatever is not there yet."""
    args = parse(argv)
    trainings = train_jobs(args.models, args.variants)
    attacks = attack_jobs(args.models, args.variants, args.attacks)
    if args.plan:
        gradients_ = sum(passes(j, args.limit) for j in attacks)
        print(f"{len(trainings)} trainings of {args.minutes:g} minutes: {len(trainings) * args.minutes / 60:.1f} hours "
              f"of one core; {len(attacks)} attacks: {gradients_:,} gradients at most")  # fmt: skip
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
    told = (
        f"{args.limit} images of {' and '.join(args.sets)}, up to {args.objects} objects each; "
        f"{args.minutes:g} minutes of training each."
    )
    text = markdown(table, wrong, told)
    print(text)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"command": COMMAND, "limit": args.limit, "minutes": args.minutes, "rows": table,
                                    "not_run": wrong}, indent=1) + "\n")  # fmt: skip
    fill(args.page, MARKER, text)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
