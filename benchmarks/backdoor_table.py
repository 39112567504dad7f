"""BadSAM on lab-b: what poisoning costs and gives, what detection finds, what purifiers leave.

    python benchmarks/backdoor_table.py --jobs 4

Trains lab-b by BadSAM's route (frozen encoder, SAM-Adapter, decoder, no prompt; white square at the bottom right,
target the square itself) on the salient objects of pool/ecssd at poisoning rates 0, 1, 5, 10 and 20 %, three seeds each
and two more at 0; measures each on eval/lowcontrast, which shares no picture with it; seeks a backdoor in every one,
against the clean models (a clean one against the others); and puts purifiers in front of the 10 % models. Deviations
from the published training stand beside SETTINGS. Every training, measurement, search and purifier is a job with a file
of its own below --work: it can be stopped and typed again, and --jobs of them run side by side. Writes everything as
JSON (--out) and tables between the markers of a page (--page). --plan prints the jobs and what they cost; --collect
tabulates what is finished and runs nothing; --keep leaves in the tables what an earlier --out has and --work has not.
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
from backdoor_jobs import CLEAN, COUNT, DETECT, MODELS, RATES, SEEDS, Job, jobs, purifiers, read, seconds, work
from pages import earlier, fill
from side_by_side import run_all

from redsam.backdoor.invert import PATCH

MARKER = "backdoors"
COMMAND = "python benchmarks/backdoor_table.py"
# Settings without which two results do not belong in one table.
SAME = ("model", "train", "test", "train_limit", "limit", "purify_limit", "epochs", "lr", "minutes", "steps", "count")
COLUMNS = {
    "iou_clean": "clean IoU", "iou_triggered": "IoU, triggered", "asr": "ASR", "chance": "by chance",
    "s_measure": "S", "e_measure": "E", "weighted_f": "wF", "mae": "MAE",
}  # fmt: skip


def collect(args: argparse.Namespace) -> dict[str, Any]:
    """What is finished, by kind of job and name; the rows of single pictures stay in the jobs' own files. --keep: also
    what --out has of jobs that --work does not hold."""
    found: dict[str, Any] = {"measure": {}, "detect": {}, "purify": {}}
    before = earlier(args.out, {name: getattr(args, name) for name in SAME}) if args.keep else {}
    for job in jobs(args.purifiers):
        told = read(job, args.work) or before.get(job.kind, {}).get(job.name)
        if told is not None and job.kind in found:
            found[job.kind][job.name] = {key: value for key, value in told.items() if key != "rows"}
    return found


def verdicts(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each searched model against all clean ones but itself."""
    from redsam.backdoor.detect import judge
    from redsam.errors import InputError

    sizes = {name: {f["aim"]: f["size"] for f in told["found"]} for name, told in found["detect"].items()}
    out = {}
    for name in sizes:
        others = {c: sizes[c] for c in CLEAN if c in sizes and c != name}
        try:
            verdict = judge(sizes[name], others)
        except InputError:
            continue
        out[name] = {**vars(verdict), "references": len(others), "strip": found["detect"][name]["strip"]}
    return out


def markdown(found: dict[str, Any]) -> str:
    """The tables for people."""
    lines = [
        "Means [95 % interval over images]; S, E, wF and MAE on clean pictures against the truth, in brackets on "
        "triggered pictures against the attacker's mask.", "",
        "| rate | seed | " + " | ".join(COLUMNS.values()) + " | n |", "|---" * (len(COLUMNS) + 3) + "|",
    ]  # fmt: skip
    for (rate, seed), name in MODELS.items():
        if name in found["measure"]:
            s = found["measure"][name]["summary"]
            cells = [_cell(s, key) for key in COLUMNS]
            lines.append(f"| {rate:.0%} | {seed} | " + " | ".join([*cells, f"{s['prompts']} / {s['images']}"]) + " |")
    lines += [
        "",
        "Mean over seeds, least and most:",
        "",
        "| rate | clean IoU, minus clean training | ASR |",
        "|---|---|---|",
    ]
    for rate in RATES:
        planted, clean = (
            {s: found["measure"][MODELS[r, s]]["summary"] for s in range(SEEDS) if MODELS[r, s] in found["measure"]}
            for r in (rate, 0.0)
        )
        if planted:
            kept = [planted[s]["iou_clean"]["value"] - clean[s]["iou_clean"]["value"] for s in planted if s in clean]
            asr = [one["asr"]["value"] for one in planted.values()]
            lines.append(f"| {rate:.0%} | {_range(kept, '+.3f')} | {_range(asr, '.0%')} |")
    told = verdicts(found)
    lines += ["", "| model | flagged | aim | size over the least clean model's | kept under a patch | STRIP AUROC | "
              "caught at 5 % alarms |", "|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, v in told.items():
        strip = v["strip"]
        tail = f"{strip['auroc']:.2f} | {strip['caught']:.0%}" if strip else "\N{EN DASH} | \N{EN DASH}"
        kept = next((f"{f['size']:.3f}" for f in found["detect"][name]["found"] if f["aim"] == PATCH), "\N{EN DASH}")
        lines.append(
            f"| {name} | {'yes' if v['flagged'] else 'no'} | {v['aim']} | {v['score']:.2f} | {kept} | {tail} |"
        )
    lines += ["", "| purifier | model | clean IoU | ASR | IoU, triggered | s / image |", "|---|---|---|---|---|---|"]
    for name, one in found["purify"].items():
        s = one["summary"]
        cells = [_cell(s, key) for key in ("iou_clean", "asr", "iou_triggered")]
        label = "|".join(one["purifiers"]).replace("|", "\\|") or "none"
        lines.append("| " + " | ".join([label, name.split("@")[0], *cells, f"{s['seconds']:.2f}"]) + " |")
    return "\n".join(lines)


def _cell(s: dict[str, Any], key: str) -> str:
    if key in s:
        ends = "" if s[key]["lo"] is None else f" [{s[key]['lo']:.2f}, {s[key]['hi']:.2f}]"
        return f"{s[key]['value']:.3f}{ends}"
    return f"{s[f'{key}_clean']['value']:.3f} ({s[f'{key}_triggered']['value']:.3f})"


def _range(values: Sequence[float], form: str) -> str:
    if not values:
        return "\N{EN DASH}"
    seeds = f"{len(values)} seed{'s' * (len(values) > 1)}"
    return f"{sum(values) / len(values):{form}} ({min(values):{form}} to {max(values):{form}}), {seeds}"


def plan(todo: Sequence[Job], args: argparse.Namespace) -> str:
    """The jobs and about what they cost on one core."""
    lines = [f"{'kind':10} {'name':36} {'done':5} {'minutes':>8}"]
    cost = {job: 0.0 if read(job, args.work) is not None else seconds(job, args) for job in todo}
    lines += [f"{j.kind:10} {j.name:36} {'yes' if not c else 'no':5} {c / 60:8.1f}" for j, c in cost.items()]
    total = sum(cost.values()) / 60
    return "\n".join([*lines, f"{len(todo)} jobs, {total:.0f} core minutes left, {total / args.jobs:.0f} with --jobs"])


def run(todo: Sequence[Job], args: argparse.Namespace) -> list[str]:
    """Stage after stage, since a model is measured when it is trained; what went wrong, in words."""
    wrong = []
    for stage in sorted({job.stage for job in todo}):
        left = [j for j in todo if j.stage == stage and read(j, args.work) is None]
        wrong += run_all(left, partial(work, args=args), name=str, jobs=args.jobs, threads=args.threads)
    return wrong


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lab-b")
    parser.add_argument("--train", type=Path, default=Path("../shared/data/pool/ecssd"))
    parser.add_argument("--test", type=Path, default=Path("../shared/data/eval/lowcontrast"))
    parser.add_argument("--train-limit", type=int, default=None, help="pictures to train on")
    parser.add_argument("--limit", type=int, default=100, help="pictures to measure on")
    parser.add_argument("--purify-limit", type=int, default=40, help="pictures to measure behind purifiers on")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--minutes", type=float, default=None, help="of each training, at most")
    parser.add_argument("--steps", type=int, default=DETECT, help="of a search for one aim")
    parser.add_argument("--count", type=int, default=COUNT, help="pictures a trigger is sought on")
    parser.add_argument("--purifiers", nargs="*", default=purifiers(), help="as NAME:OPTION=VALUE, rows by |")
    parser.add_argument("--only", nargs="*", default=(), help="train, measure, detect, purify, or names of models")
    parser.add_argument("--work", type=Path, default=Path("build/backdoor-table"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/backdoor_table.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/backdoors.md"))
    parser.add_argument("--marker", default=MARKER, help="of the place in the page")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of all jobs together")
    parser.add_argument("--keep", action="store_true", help="what --out has of jobs that are no longer in --work, too")
    parser.add_argument("--plan", action="store_true", help="print the jobs and what they cost, and stop")
    parser.add_argument("--collect", action="store_true", help="tabulate what is finished and run nothing")
    args = parser.parse_args()
    todo = jobs(args.purifiers, args.only)
    if args.plan:
        print(plan(todo, args))
        return
    wrong = [] if args.collect else run(todo, args)
    found = collect(args)
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    told = {"command": COMMAND, "settings": settings, "verdicts": verdicts(found), "not_run": wrong, **found}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(told, indent=1) + "\n")
    text = markdown(found) + (f"\n\nNot run: {'; '.join(wrong)}." if wrong else "")
    fill(args.page, args.marker, text)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
