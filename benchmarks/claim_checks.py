"""Why a published claim is not borne out by the attack table: is it the recipe, the lab model or the claim?

    python benchmarks/claim_checks.py --jobs 4

Asked after benchmarks/attack_table.py, on the images of its claims (8 a set), against its records:
  cross-prompt  both attacks with ClipMSE, whose losses are of another size for every kind of prompt, instead of Dice;
                and with Dice, but told the objects by points, whose masks on a weak model are often of something else;
  figa          k = 1,000 and 10,000 held to the 25 steps of FGSM* instead of 100;
  black-box     what EBAD's surrogates do to lab-b by plain PGD, and what noise of the same size does.
Each (check, set) is a run of its own below --work: stopped and typed again, it goes on. About 60 core minutes.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

# Before torch is imported: threads that spin while they wait starve the jobs beside them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from attack_jobs import IMAGES, MATRIX, SETS, STEPS, bank
from claims import ALL_PIXELS, by_kind, few_pixels, near_clean, strangers, unseen
from evidence import Bank, Contrast
from pages import fill
from side_by_side import run_all

from redsam.bench import Matrix, Trial, matrix
from redsam.bench.files import write_json
from redsam.bench.presets import Asked, linf
from redsam.data import open_data
from redsam.data.base import Dataset
from redsam.models import load
from redsam.models.base import Segmenter
from redsam.studies import study

MARKER, COMMAND = "checks", "python benchmarks/claim_checks.py"
SOURCE = "lab-b"
# What differs from the table, by what it is called.
CROSSED: dict[str, dict[str, Any]] = {
    ", ClipMSE": {"objective": "vanish", "objects": "point"},
    ", Dice, objects by points": {"objects": "point"},
}
FIGA_KS, FIGA_STEPS = (1000, 10000), 25
SURROGATES = ("lab-h", "lab-l", "lab2")
NOISE = "noise, uniform in the ball"


@dataclass(frozen=True, kw_only=True)
class Check:
    """name: of a claim or so. part: image set. limit: images of it."""

    name: str
    part: str
    limit: int

    def __str__(self) -> str:
        return f"{self.name} {self.part}"

    def folder(self, work: Path) -> Path:
        """Where it is done, as deep as a job of the table, so that `bank` finds it."""
        return work / "check" / self.name / self.part


def checks(limit: int) -> list[Check]:
    """All, the longest first."""
    sizes = {"cross-prompt": limit, "figa": limit, "black-box": min(limit, IMAGES["ebad"])}
    return [Check(name=name, part=part, limit=size) for name, size in sizes.items() for part in SETS]


def work(check: Check, args: argparse.Namespace) -> None:
    """One check in a process of its own."""
    model, data = load(SOURCE, device=args.device), open_data(args.data / check.part)
    common = {"out": check.folder(args.work), "limit": check.limit, "batch": args.batch}
    fields = list(RUNS[check.name](model, data, common))
    write_json(check.folder(args.work) / "fields.json", {"run": check.name, "set": check.part, "fields": fields})


def _crossed(model: Segmenter, data: Dataset, common: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    for label, options in CROSSED.items():
        found = study("cross-prompt-matrix", **options, **MATRIX).run(model, data, **common)
        for row in (row for table in found.tables for row in table.rows if "cell" in row):
            names = {name: row[name] for name in ("cell", "crafted", "tested")}
            yield {"victim": SOURCE, "attack": f"{row['attack']}{label}", **names}


def _figa(model: Segmenter, data: Dataset, common: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    free = ({"norm": "linf", "eps": 1.0},)
    trials = [
        Trial(attack="figa", args={"goal": "reverse", "steps": FIGA_STEPS, "k": k}, threats=free,
              label=f"figa, k = {k}, {FIGA_STEPS} steps")
        for k in FIGA_KS
    ]  # fmt: skip
    found = matrix([model], [model], data, trials=trials, attacker_protocols=[("box", {"max_objects": 1})],
                   name="check", select="single", joint=False, **common)  # fmt: skip
    yield from _fields(found)


def _black_box(model: Segmenter, data: Dataset, common: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    asked: list[Asked] = [("box", {"max_objects": 1})]
    still = Trial(attack="pgd", args={"steps": 1, "step_size": 1e-6}, threats=linf(8), label=NOISE)
    plain = Trial(attack="pgd", args={"steps": STEPS}, threats=linf(8), label="pgd")
    alone: Mapping[str, Any] = {"attacker_protocols": asked, "name": "check", "select": "single", "joint": False}
    yield from _fields(matrix([model], [model], data, trials=[still], **alone, **common))
    others = [load(name, device=str(model.device)) for name in SURROGATES]
    found = matrix(others, [model], data, trials=[plain], **alone, **common)
    for field, entry in zip(_fields(found), (e for e in found.entries if e.source), strict=True):
        yield field | {"attack": f"pgd from {entry.source}"}


RUNS = {"cross-prompt": _crossed, "figa": _figa, "black-box": _black_box}


def _fields(found: Matrix) -> Iterator[dict[str, str]]:
    for entry in found.entries:
        if entry.source:
            yield {"attack": entry.trial, "victim": SOURCE, "cell": entry.cell.id, "crafted": "", "tested": ""}


def judged(table: Bank, checked: Bank) -> dict[str, list[Contrast]]:
    """What each check found that was run. table: records of the attack table."""
    found: dict[str, Callable[[Bank, Bank], list[Contrast]]] = {
        "cross-prompt": _told_crossed, "figa": _told_figa, "black-box": _told_black_box,
    }  # fmt: skip
    return {name: told(table, checked) for name, told in found.items() if any(f.run == name for f in checked)}


def _told_crossed(_: Bank, checked: Bank) -> list[Contrast]:
    found: list[Contrast] = []
    for label in CROSSED:
        mine = [
            replace(f, run="cross-prompt-matrix", attack=f.attack.removesuffix(label))
            for f in checked
            if f.run == "cross-prompt" and f.attack.endswith(label)
        ]
        found += [replace(c, name=c.name + label) for c in (unseen(mine, strangers(mine)), *by_kind(mine))]
    return found


def _told_figa(table: Bank, checked: Bank) -> list[Contrast]:
    whole = [f for f in table if f.run == "figa-sweep" and f.attack == ALL_PIXELS]
    some = [replace(f, run="figa-sweep") for f in checked if f.run == "figa"]
    return [c for group in few_pixels([*whole, *some]) for c in group]


def _told_black_box(_: Bank, checked: Bank) -> list[Contrast]:
    score = [replace(f, run="score") for f in checked if f.run == "black-box"]
    return [near_clean(score, name) for name in (NOISE, *(f"pgd from {s}" for s in SURROGATES))]


def markdown(found: Mapping[str, Sequence[Contrast]]) -> str:
    """The table for people."""
    lines = ["| check | measured [interval] | above | verdict | n |", "|---|---|---|---|---|"]
    for contrasts in found.values():
        for c in contrasts:
            ends = "too few images" if c.lo is None else f"{c.lo:.3f}, {c.hi:.3f}"
            lines.append(f"| {c.name} | {c.value:.3f} [{ends}] | {c.bar:g} | {c.verdict} | {c.images} |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/eval"))
    parser.add_argument("--limit", type=int, default=8, help="images a set, the table's --claim-limit")
    parser.add_argument("--only", nargs="*", choices=tuple(RUNS), default=tuple(RUNS))
    parser.add_argument("--table", type=Path, default=Path("build/attack-table"), help="the attack table's --work")
    parser.add_argument("--work", type=Path, default=Path("build/claim-checks"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/claim_checks.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/attacks.md"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of all jobs together")
    parser.add_argument("--batch", type=int, default=4)
    args = parser.parse_args()
    todo = [c for c in checks(args.limit) if c.name in args.only]
    wrong = run_all(todo, partial(work, args=args), name=str, jobs=args.jobs, threads=args.threads)
    if wrong:
        raise SystemExit(f"{'; '.join(wrong)}: the same command again goes on.")
    found = judged(bank(args.table), bank(args.work))
    told = {name: [asdict(c) | {"verdict": c.verdict} for c in contrasts] for name, contrasts in found.items()}
    write_json(args.out, {"command": COMMAND, "limit": args.limit, "checks": told})
    fill(args.page, MARKER, markdown(found))


if __name__ == "__main__":
    main()
