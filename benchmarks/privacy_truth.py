"""The privacy audit against a planted truth: a model taught 20 of 40 people by name, and models taught nobody.

    python training/plant_names.py --faces ../shared/data/faces --out training/out/planted
    python benchmarks/privacy_truth.py --faces ../shared/data/faces --planted training/out/planted

Asks each model for the 40 invented names on photographs that the planted one was not trained on (three of each person;
planted.json says which). Targets: of the 20 taught at least 18 "knows", of the other 20 at most 1; of the 40 at most 1
for lab-text as it ships and for the same network with random weights. The last is a guard and says little: it marks the
same whatever is asked. Every audit goes on where it was stopped (--work). Writes --out: names as initials, no pixel.
Exit code 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))

import numpy as np
import torch

from redsam.models import load
from redsam.privacy import Audited, Plan, audit, read_people
from redsam.report.privacy import render

ROOT = Path(__file__).resolve().parents[1]
HEAD = "model            names   knows does not undecided   skill precision recall     F1"
LEAST_KNOWN, MOST_WRONG = 18, 1


def lay_out(faces: Path, told: dict[str, Any], folder: Path) -> Path:
    """The photographs nobody was trained on as the folder of people an audit reads; returns the file of names."""
    for person, facts in told["people"].items():
        (folder / person).mkdir(parents=True, exist_ok=True)
        for name in facts["audited"]:
            if not (folder / person / name).exists():
                shutil.copyfile(faces / person / name, folder / person / name)
    names = folder.with_name("names.json")
    names.write_text(json.dumps({person: facts["name"] for person, facts in told["people"].items()}))
    return names


def random_weights(folder: Path) -> Path:
    """The planted network's architecture, not trained at all."""
    from text import build

    if not (folder / "config.json").exists():
        build(None).save_pretrained(folder)
    return folder


def row(found: Audited, taught: dict[str, bool], names: list[str]) -> dict[str, Any]:
    """What one model's audit says, by what is true."""
    people = [
        {
            "name": label, "taught": taught[name], "verdict": r.verdict, "reason": r.reason, "skill": round(r.skill, 4),
            "lead": round(r.lead, 4), "precision": round(r.counts.precision, 4), "recall": round(r.counts.recall, 4),
            "f1": round(r.counts.f1, 4), "grids": r.grids,
        }
        for label, name, r in zip(found.labels, names, found.results, strict=True)
    ]  # fmt: skip
    groups = {}
    for group, wanted in (("taught", True), ("others", False)):
        chosen = [p for p in people if p["taught"] is wanted]
        verdicts = [p["verdict"] for p in chosen]
        groups[group] = {v: verdicts.count(v) for v in ("knows", "does not know", "undecided")} | {
            key: round(float(np.mean([p[key] for p in chosen])), 4) for key in ("skill", "precision", "recall", "f1")
        }
    return {
        "bar": round(found.claims.singled.bar, 4), "groups": groups, "people": people,
        "queries": found.summary["queries"], "chance": found.summary["chance"],
    }  # fmt: skip


def show(name: str, found: dict[str, Any]) -> None:
    """A model's lines of the table."""
    for group, g in found["groups"].items():
        verdicts = f"{g['knows']:5} {g['does not know']:8} {g['undecided']:9}"
        print(
            f"{name:16} {group:7} {verdicts} {g['skill']:7.3f} {g['precision']:9.3f} {g['recall']:6.3f} {g['f1']:6.3f}"
        )


def main(words: list[str] | None = None) -> int:
    """Audit every model, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--planted", type=Path, default=ROOT / "training" / "out" / "planted")
    parser.add_argument("--untrained", default="lab-text", help="a model that was taught none of these people")
    parser.add_argument("--only", choices=("planted", "untrained", "random"), help="this model alone; writes nothing")
    parser.add_argument("--grids", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "privacy_truth")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "privacy_truth.json")
    args = parser.parse_args(words)
    torch.set_num_threads(args.threads)
    told = json.loads((args.planted / "planted.json").read_text())
    names_file = lay_out(args.faces, told, args.work / "people")
    people = read_people(args.work / "people", names=names_file)
    names = [p.name for p in people.persons]
    taught = {facts["name"]: bool(facts["known"]) for facts in told["people"].values()}
    models = {
        "planted": str(args.planted), "untrained": args.untrained, "random": str(random_weights(args.work / "random")),
    }  # fmt: skip
    rows: dict[str, Any] = {}
    print(HEAD)
    for kind, where in models.items():
        if args.only not in (None, kind):
            continue
        model = load(where)
        identity = {"name": kind, "family": model.family, "fingerprint": model.fingerprint()}
        found = audit(
            model, people, out=args.work / kind, model=identity, plan=Plan(grids=args.grids, seed=args.seed)
        )  # fmt: skip
        render(args.work / kind)
        rows[kind] = {"fingerprint": identity["fingerprint"], **row(found, taught, names)}
        show(kind, rows[kind])
    for line, c in next(iter(rows.values()))["chance"].items():
        print(f"{'chance':16} {line:30} {0:7.3f} {c['precision']:9.3f} {c['recall']:6.3f} {c['f1']:6.3f}")
    if args.only:
        return 0
    counts = {kind: {g: v["knows"] for g, v in r["groups"].items()} for kind, r in rows.items()}
    targets = {
        f"planted: at least {LEAST_KNOWN} of the taught": counts["planted"]["taught"] >= LEAST_KNOWN,
        f"planted: at most {MOST_WRONG} of the others": counts["planted"]["others"] <= MOST_WRONG,
        **{
            f"{kind}: at most {MOST_WRONG} of all": sum(counts[kind].values()) <= MOST_WRONG
            for kind in ("untrained", "random")
        },
    }
    for target, met in targets.items():
        print(f"{'met' if met else 'MISSED':6} {target}")
    written = {
        "command": f"python benchmarks/privacy_truth.py --faces FACES --planted PLANTED --grids {args.grids}",
        "untrained": args.untrained, "seed": args.seed, "grids": args.grids, "targets": targets,
        "planted": {k: v for k, v in told.items() if k != "people"},
        "photographs": {"trained": 6, "watched": 1, "audited": 3}, "models": rows,
    }  # fmt: skip
    args.out.write_text(json.dumps(written, indent=1) + "\n")
    return int(not all(targets.values()))


if __name__ == "__main__":
    raise SystemExit(main())
