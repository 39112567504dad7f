"""The driver: ask a detector for every name on every grid, one synced record per grid and permutation, then judge.

Records hold indices of people, never names, and boxes, so that they can be scored again by another rule. Nothing here
opens a connection. A run that was killed goes on at its first missing record and ends with the same records.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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
from redsam.privacy.grids import PERMUTATIONS, SIZE, Geometry, Grid, draw
from redsam.privacy.labels import Show, labels, salt_of
from redsam.privacy.people import People, photograph
from redsam.privacy.scoring import Detect, chance_lines, marks
from redsam.privacy.verdicts import Answers, NameResult, Rule, judge

GRIDS = 200
SCHEMA = 1
NO_RULE = Rule()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is asked. grids, size, permutations: as published 200, 3 and 3; seed: of every draw."""

    grids: int = GRIDS
    size: int = SIZE
    permutations: int = PERMUTATIONS
    seed: int = 0

    def __post_init__(self) -> None:
        if self.grids < 1 or self.permutations < 1:
            raise InputError("An audit needs at least one grid and one permutation.", hint="Type: --grids 200")


@dataclass(frozen=True, kw_only=True)
class Audited:
    """What an audit found: the results in the order of people, and privacy.json as written."""

    out: Path
    results: tuple[NameResult, ...]
    labels: tuple[str, ...]
    summary: JsonDict


def audit(
    detect: Detect,
    people: People,
    *,
    out: Path | str,
    model: Mapping[str, Any],
    plan: Plan | None = None,
    rule: Rule = NO_RULE,
    show: Show = "initials",
    device: torch.device | None = None,
    progress: Progress | None = None,
    command: str | None = None,
) -> Audited:
    """Run or resume, then write OUT/privacy.json.

    model: name, family, fingerprint, whatever tells this detector from others; answers of another one are kept apart.
    The rule and how names are shown may change between runs without asking the model again. Raises InputError.
    """
    plan = plan or Plan()
    geometry = Geometry(size=plan.size, tile=people.tile)
    available = [len(p.photographs) for p in people.persons]
    grids = [draw(available, i, seed=plan.seed, size=plan.size, permutations=plan.permutations)
             for i in range(plan.grids)]  # fmt: skip
    cell = _cell(people, model, plan)
    progress = progress or Silent()
    store = RunStore(out)
    with store.lock():
        env = environment(device or torch.device("cpu"))
        _ask(detect, people, grids, geometry, store.cell(cell), env, progress)
        answers = read_answers(read_records(store.cell(cell).samples), geometry)
        results = judge(answers, len(people.persons), rule, seed=plan.seed)
        salt = salt_of(store.root) if show == "hashes" else b""
        # Those left out are labelled with the others: a reason must not be where a name gets out.
        shown = labels([p.name for p in people.persons] + [s.who for s in people.skipped], show, salt=salt)
        summary: JsonDict = {
            "schema": SCHEMA, "cell": cell.id, "model": dict(model), "plan": asdict(plan), "rule": asdict(rule),
            "show": show, "tiles": geometry.tiles, "tile": list(geometry.tile), "padding": geometry.padding,
            "people": len(people.persons), "queries": plan.grids * plan.permutations * geometry.tiles,
            "chance": chance_lines(geometry.tiles),
            "names": [{"name": label, **r.to_json()} for label, r in zip(shown, results, strict=False)],
            "skipped": [{"who": label, "reason": s.reason}
                        for label, s in zip(shown[len(results) :], people.skipped, strict=True)],
            "env": env, "command": command,
        }  # fmt: skip
        write_json(store.root / "privacy.json", summary)
    return Audited(out=store.root, results=tuple(results), labels=tuple(shown[: len(results)]), summary=summary)


def read_answers(records: Sequence[JsonDict], geometry: Geometry) -> Answers:
    """Score records into arrays, marks moved from tiles to the people on them."""
    grids = 1 + max(r["grid"] for r in records)
    permutations, tiles = 1 + max(r["permutation"] for r in records), geometry.tiles
    people = np.zeros((grids, tiles), dtype=np.int64)
    marked = np.zeros((grids, permutations, tiles, tiles), dtype=bool)
    errors = np.zeros((grids, permutations, tiles), dtype=np.int64)
    for r in records:
        g, k = r["grid"], r["permutation"]
        people[g] = r["people"]
        for slot, boxes in enumerate(r["boxes"]):
            answer = marks((tuple(b[:4]) for b in boxes), geometry)
            errors[g, k, slot] = answer.errors + r["broken"][slot]
            for tile in answer.tiles:
                marked[g, k, slot, r["order"][tile]] = True
    return Answers(people=people, marked=marked, errors=errors)


def _cell(people: People, model: Mapping[str, Any], plan: Plan) -> Cell:
    """The identity under which answers are kept: everything that changes an answer, nothing that only reads it."""
    return Cell(
        model=dict(model),
        probe={"kind": "privacy", "name": "names"},
        threat=None,
        data={"name": "people", "fingerprint": people.fingerprint},
        protocol={"name": "privacy-grids", "args": {k: v for k, v in asdict(plan).items() if k != "seed"}},
        seed=plan.seed,
    )


def _ask(
    detect: Detect, people: People, grids: Sequence[Grid], geometry: Geometry, store: CellStore,
    env: Mapping[str, Any], progress: Progress,
) -> None:  # fmt: skip
    """Make every record that is missing."""
    total = len(grids) * len(grids[0].orders)
    progress.start(cells=1, finished=int(store.done), images=total)
    if store.done:
        return
    done = {r["sample"] for r in store.open(env)}
    progress.cell(store.cell, label="asking names", images=total, finished=len(done))
    tile = functools.lru_cache(maxsize=2048)(lambda path: photograph(path, geometry.tile))
    try:
        for grid in grids:
            for k, order in enumerate(grid.orders):
                sample = f"g{grid.index}.k{k}"
                if sample in done:
                    continue
                paths = [people.persons[p].photographs[f] for p, f in zip(grid.people, grid.photographs, strict=True)]
                image = geometry.compose([tile(paths[slot]) for slot in order])
                found = [_boxes(detect, image, people.persons[p].name) for p in grid.people]
                record = {
                    "sample": sample, "grid": grid.index, "permutation": k, "people": list(grid.people),
                    "photographs": list(grid.photographs), "order": list(order),
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


def _boxes(detect: Detect, image: torch.Tensor, name: str) -> tuple[list[list[float]], int]:
    """[x0, y0, x1, y1, score] of an answer in 1/1000 pixel, and how many detections were not finite numbers."""
    found = np.array([[*d.box, d.score] for d in detect(image, name)], dtype=np.float64).reshape(-1, 5)
    fine = np.isfinite(found).all(1)
    return [[round(float(v), 3) for v in row] for row in found[fine]], int((~fine).sum())
