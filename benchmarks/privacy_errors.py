"""How often the privacy audit is wrong, and how much it finds, on simulated detectors whose knowledge is known.

    python benchmarks/privacy_errors.py --jobs 4

20 people, 100 grids (each person on 45 of them, as 40 people on 200), 40 invented names. What a detector does with
names it does not know is one of fourteen habits (one random tile, every tile, always the same tile, one person whoever
is asked for, faces that attract any name, names tied to arbitrary faces, names that say which half of the people, ...);
none, half, all but one, or all of the 20 names are known, and a known person is marked on a share of photographs
(`hit`). An error is an audit with even one false "knows"; "tile alone" is what the same answers give by the tile test,
corrected, without invented names. Rates come with exact 95 % intervals. Every setting is a cell of its own below
--work: stopped, it goes on. Writes --out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "privacy"))

import numpy as np
import simulated as sim
from scipy import stats

from redsam.privacy import Rule, claim
from redsam.seeds import stable_seed

ROOT = Path(__file__).resolve().parents[1]
NAMES, GRIDS = 20, 100
HABITS: dict[str, Callable[[int], sim.Detector]] = {
    "one random tile": lambda known: sim.one_random,
    "every tile": lambda known: sim.everything,
    "always the same tile": lambda known: sim.same_tile,
    "prefers one person": lambda known: sim.one_person,
    "some faces attract any name": lambda known: sim.scored(faces_vary=1),
    "and some names mark more": lambda known: sim.scored(faces_vary=1, names_vary=1.5),
    "the most attractive face": lambda known: sim.scored(faces_vary=1, best=True),
    "arbitrary embedding": lambda known: sim.scored(pairs_vary=1),
    "arbitrary embedding, best": lambda known: sim.scored(pairs_vary=1, best=True),
    "every name tied to a face": lambda known: sim.tied(),
    "one name in ten tied to a face": lambda known: sim.tied(0.1),
    "names say which half": lambda known: sim.by_half,
    "a name in thirty says which half": lambda known: sim.rare_half,
    "marks whom it does not recognise": sim.strangers,
}
KNOWN = (0, NAMES // 2, NAMES - 1, NAMES)
HITS = (0.2, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One cell. known: how many of the names; hit: on which share of photographs a known person is marked."""

    habit: str
    known: int
    hit: float = 0.9

    @property
    def key(self) -> str:
        """Its name below --work."""
        return f"{self.habit}, {self.known} known, hit {self.hit:g}"


def settings() -> list[Setting]:
    """Every habit with every share known; how power grows with the hit rate for two habits."""
    cells = [Setting(habit=habit, known=known) for habit in HABITS for known in KNOWN]
    cells += [
        Setting(habit=habit, known=NAMES // 2, hit=hit)
        for habit in ("one random tile", "some faces attract any name")
        for hit in HITS[:-1]
    ]
    return cells


def measure(setting: Setting, repeats: int, seed: int, grids: int) -> dict[str, Any]:
    """Counts over `repeats` audits of a setting."""
    detector = sim.knows(setting.known, setting.hit, HABITS[setting.habit](setting.known))
    rule = Rule()
    wrong = wrong_tile = wrong_not = found = shown = 0
    for repeat in range(repeats):
        drawn = stable_seed("privacy errors", seed, setting.key, repeat)
        claims = claim(sim.answer(detector, names=NAMES, grids=grids, seed=drawn), NAMES, rule)
        verdicts = np.array([verdict for verdict, _ in claims.verdicts])
        knows = verdicts == "knows"
        wrong += bool(knows[setting.known :].any())
        wrong_tile += bool((claims.p_found[setting.known :] <= rule.alpha).any())
        wrong_not += bool((verdicts[: setting.known] == "does not know").any()) and setting.hit >= rule.margin
        found += int(knows[: setting.known].sum())
        shown += int((verdicts[setting.known :] == "does not know").sum())
    unknown = NAMES - setting.known
    return {
        **asdict(setting), "repeats": repeats, "false_knows": wrong, "false_knows_rate": rate(wrong, repeats),
        "false_knows_tile_test_alone": rate(wrong_tile, repeats), "false_not_rate": rate(wrong_not, repeats),
        "power": found / (repeats * setting.known) if setting.known else None,
        "unknown_shown_not_known": shown / (repeats * unknown) if unknown else None,
    }  # fmt: skip


def rate(count: int, total: int) -> list[float]:
    """Share with its exact (Clopper-Pearson) 95 % interval."""
    low = float(stats.beta.ppf(0.025, count, total - count + 1)) if count else 0.0
    high = float(stats.beta.ppf(0.975, count + 1, total - count)) if count < total else 1.0
    return [round(count / total, 4), round(low, 4), round(high, 4)]


def job(setting: Setting, args: argparse.Namespace) -> dict[str, Any]:
    """A cell, from --work where it is there."""
    repeats = args.repeats if setting.known < NAMES else max(1, args.repeats // 10)  # nothing can go wrong: power only
    file = args.work / f"{setting.key} x{repeats} g{args.grids} s{args.seed}.json".replace(" ", "_")
    if file.exists():
        return dict(json.loads(file.read_text()))
    row = measure(setting, repeats, args.seed, args.grids)
    file.with_suffix(".tmp").write_text(json.dumps(row))
    os.replace(file.with_suffix(".tmp"), file)
    return row


def main(words: list[str] | None = None) -> int:
    """1 when a rate of false "knows" is above alpha beyond doubt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "privacy_errors.json")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "privacy_errors")
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--grids", type=int, default=GRIDS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args(words)
    args.work.mkdir(parents=True, exist_ok=True)
    cells = settings()
    with ProcessPoolExecutor(args.jobs) as pool:
        rows = list(pool.map(job, cells, [args] * len(cells)))
    print(f"{'unknown names':34} {'known':>5} {'hit':>4} {'false knows, 95 %':>24} {'tile alone':>10} {'power':>6}")
    for r in rows:
        share, low, high = r["false_knows_rate"]
        power = "-" if r["power"] is None else f"{r['power']:.3f}"
        shown = "-" if r["known"] == NAMES else f"{share:.3f} [{low:.3f}, {high:.3f}]"
        alone = "-" if r["known"] == NAMES else f"{r['false_knows_tile_test_alone'][0]:.3f}"
        print(f"{r['habit']:34} {r['known']:5} {r['hit']:4.1f} {shown:>24} {alone:>10} {power:>6}")
    real = [r for r in rows if r["known"] < NAMES]
    wrong, total = sum(r["false_knows"] for r in real), sum(r["repeats"] for r in real)
    worst = max(real, key=lambda r: r["false_knows_rate"][0])
    found = {
        "command": f"python benchmarks/privacy_errors.py --repeats {args.repeats}", "alpha": Rule().alpha,
        "names": NAMES, "grids": args.grids, "decoys": sim.DECOYS, "seed": args.seed,
        "all": rate(wrong, total), "audits": total, "rows": rows,
        "worst": {key: worst[key] for key in ("habit", "known", "false_knows_rate")},
    }  # fmt: skip
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"all {total} audits: {found['all']}; worst: {found['worst']}")
    return int(any(r["false_knows_rate"][1] > Rule().alpha for r in real))


if __name__ == "__main__":
    raise SystemExit(main())
