"""The driver: ask a detector for names on grids, one synced record per grid and permutation, then judge.

In the first permutation of a grid every name is asked and every decoy (see `singling`), in the others the names of
those on it, as published.
Records hold indices of people, never names, and boxes, so that they can be scored again by another rule. Nothing here
opens a connection. A run that was killed goes on at its first missing record and ends with the same records.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from redsam.bench.environment import environment
from redsam.bench.files import write_json
from redsam.bench.progress import Progress, Silent
from redsam.bench.spec import Cell, JsonDict
from redsam.bench.store import CellStore, RunStore, read_records
from redsam.errors import InputError
from redsam.privacy.decoys import DECOYS, invent
from redsam.privacy.grids import PERMUTATIONS, SIZE, Geometry, Grid, draw
from redsam.privacy.labels import Show, labels, salt_of
from redsam.privacy.people import People, photograph
from redsam.privacy.scoring import Detect, Detection, Detector, chance_lines, marks
from redsam.privacy.singling import allowed
from redsam.privacy.verdicts import Answers, Claims, NameResult, Rule, judge

GRIDS = 200
SCHEMA = 2
NO_RULE = Rule()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is asked. grids, size, permutations: as published 200, 3 and 3; decoys: how many invented names are asked
    beside the real ones; seed: of every draw."""

    grids: int = GRIDS
    size: int = SIZE
    permutations: int = PERMUTATIONS
    decoys: int = DECOYS
    seed: int = 0

    def __post_init__(self) -> None:
        if self.grids < 1 or self.permutations < 1:
            raise InputError("An audit needs at least one grid and one permutation.", hint="Type: --grids 200")


@dataclass(frozen=True, kw_only=True)
class Audited:
    """What an audit found: the results in the order of people, what they rest on, and privacy.json as written."""

    out: Path
    results: tuple[NameResult, ...]
    claims: Claims
    labels: tuple[str, ...]
    summary: JsonDict


def audit(
    detect: Detect | Detector,
    people: People,
    *,
    out: Path | str,
    model: Mapping[str, Any],
    plan: Plan | None = None,
    rule: Rule = NO_RULE,
    decoys: Sequence[str] | None = None,
    show: Show = "initials",
    device: torch.device | None = None,
    progress: Progress | None = None,
    command: str | None = None,
) -> Audited:
    """Run or resume, then write OUT/privacy.json.

    model: name, family, fingerprint, whatever tells this detector from others; answers of another one are kept apart.
    decoys: names of your own in place of plan.decoys invented ones. The rule and how names are shown may change between
    runs without asking the model again. Raises InputError.
    """
    plan = plan or Plan()
    plan = plan if decoys is None else replace(plan, decoys=len(decoys))
    allowed(plan.decoys, rule.alpha)  # too few are refused before the model is asked
    names = [p.name for p in people.persons]
    strings = [*names, *(invent(names, plan.decoys, seed=plan.seed) if decoys is None else decoys)]
    geometry = Geometry(size=plan.size, tile=people.tile)
    available = [len(p.photographs) for p in people.persons]
    grids = [draw(available, i, seed=plan.seed, size=plan.size, permutations=plan.permutations)
             for i in range(plan.grids)]  # fmt: skip
    cell = _cell(people, model, plan, strings[len(names) :])
    progress = progress or Silent()
    store = RunStore(out)
    with store.lock():
        env = environment(device or torch.device("cpu"))
        _ask(detect, people, strings, grids, geometry, store.cell(cell), env, progress)
        answers = read_answers(read_records(store.cell(cell).samples), geometry)
        results, claims = judge(answers, len(names), rule, seed=plan.seed)
        salt = salt_of(store.root) if show == "hashes" else b""
        # Those left out are labelled with the others: a reason must not be where a name gets out.
        everybody = list(dict.fromkeys(names + [s.who for s in people.skipped]))
        shown = dict(zip(everybody, labels(everybody, show, salt=salt), strict=True))
        summary: JsonDict = {
            "schema": SCHEMA, "cell": cell.id, "model": dict(model), "plan": asdict(plan), "rule": asdict(rule),
            "show": show, "tiles": geometry.tiles, "tile": list(geometry.tile), "padding": geometry.padding,
            "people": len(names), "queries": plan.grids * (len(strings) + (plan.permutations - 1) * geometry.tiles),
            "bar": claims.singled.bar, "decoys": [round(float(v), 6) for v in claims.singled.lead[len(names) :]],
            "chance": chance_lines(geometry.tiles),
            "names": [{"name": shown[name], **r.to_json()} for name, r in zip(names, results, strict=True)],
            "skipped": [{"who": shown[s.who], "reason": s.reason} for s in people.skipped],
            "env": env, "command": command,
        }  # fmt: skip
        write_json(store.root / "privacy.json", summary)
    return Audited(
        out=store.root,
        results=tuple(results),
        claims=claims,
        labels=tuple(shown[name] for name in names),
        summary=summary,
    )


def read_answers(records: Sequence[JsonDict], geometry: Geometry) -> Answers:
    """Score records into arrays, marks moved from tiles to the people on them."""
    grids = 1 + max(r["grid"] for r in records)
    permutations, tiles = 1 + max(r["permutation"] for r in records), geometry.tiles
    strings = 1 + max(max(r["asked"]) for r in records)
    people = np.zeros((grids, tiles), dtype=np.int64)
    marked = np.zeros((grids, permutations, tiles, tiles), dtype=bool)
    everyone = np.zeros((grids, strings, tiles), dtype=bool)
    errors = np.zeros((grids, permutations, tiles), dtype=np.int64)
    for r in records:
        g, k = r["grid"], r["permutation"]
        people[g] = r["people"]
        for slot, (string, boxes) in enumerate(zip(r["asked"], r["boxes"], strict=True)):
            answer = marks((tuple(b[:4]) for b in boxes), geometry)
            found = [r["order"][tile] for tile in answer.tiles]
            if slot < tiles:  # the names of those on the grid come first, by slot
                errors[g, k, slot] = answer.errors + r["broken"][slot]
                marked[g, k, slot, found] = True
            if k == 0:
                everyone[g, string, found] = True
    return Answers(people=people, marked=marked, everyone=everyone, errors=errors)


def _cell(people: People, model: Mapping[str, Any], plan: Plan, decoys: Sequence[str]) -> Cell:
    """The identity under which answers are kept: everything that changes an answer, nothing that only reads it."""
    invented = hashlib.sha256("\n".join(decoys).encode()).hexdigest()[:16]
    return Cell(
        model=dict(model),
        probe={"kind": "privacy", "name": "names"},
        threat=None,
        data={"name": "people", "fingerprint": people.fingerprint, "decoys": invented},
        protocol={"name": "privacy-grids", "args": {k: v for k, v in asdict(plan).items() if k != "seed"}},
        seed=plan.seed,
    )


def _ask(
    detect: Detect | Detector, people: People, strings: Sequence[str], grids: Sequence[Grid], geometry: Geometry,
    store: CellStore, env: Mapping[str, Any], progress: Progress,
) -> None:  # fmt: skip
    """Make every record that is missing."""
    total = len(grids) * len(grids[0].orders)
    progress.start(cells=1, finished=int(store.done), images=total)
    if store.done:
        return
    done = set(store.open(env))
    progress.cell(store.cell, label="asking names", images=total, finished=len(done))
    tile = functools.lru_cache(maxsize=2048)(lambda path: photograph(path, geometry.tile))
    try:
        for grid in grids:
            there = list(grid.people)
            others = [i for i in range(len(strings)) if i not in set(there)]
            for k, order in enumerate(grid.orders):
                sample = f"g{grid.index}.k{k}"
                if sample in done:
                    continue
                paths = [people.persons[p].photographs[f] for p, f in zip(grid.people, grid.photographs, strict=True)]
                image = geometry.compose([tile(paths[slot]) for slot in order])
                asked = there + others if k == 0 else there
                found = [_boxes(answer) for answer in _answers(detect, image, [strings[i] for i in asked])]
                record = {
                    "sample": sample, "grid": grid.index, "permutation": k, "people": there,
                    "photographs": list(grid.photographs), "order": list(order), "asked": asked,
                    "boxes": [boxes for boxes, _ in found], "broken": [broken for _, broken in found],
                }  # fmt: skip
                store.append(record)
                progress.image(record)
        store.finish()
    except KeyboardInterrupt:
        progress.stop("Stopped. What was asked is kept; the same command goes on from there.")
        raise
    finally:
        store.close()


def _answers(detect: Detect | Detector, image: torch.Tensor, texts: Sequence[str]) -> Sequence[Sequence[Detection]]:
    return detect.detect_all(image, texts) if isinstance(detect, Detector) else [detect(image, t) for t in texts]


def _boxes(detections: Sequence[Detection]) -> tuple[list[list[float]], int]:
    """[x0, y0, x1, y1, score] of an answer in 1/1000 pixel, and how many detections were not finite numbers."""
    found = np.array([[*d.box, d.score] for d in detections], dtype=np.float64).reshape(-1, 5)
    fine = np.isfinite(found).all(1)
    return [[round(float(v), 3) for v in row] for row in found[fine]], int((~fine).sum())
