"""Entries: the models of a run with what they were asked, read from summary.json and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redsam.bench.files import safe_name
from redsam.bench.spec import canonical, digest
from redsam.errors import InputError
from redsam.report.reading import GROUND_TRUTH, Row, Run, read_run
from redsam.report.verdict import clean_rows, headline_rows, is_weak

Question = Mapping[str, Any]
# In what order a difference is looked for: what a reader would name first.
PARTS = {
    "data": "photographs",
    "objects": "objects",
    "protocol": "prompts",
    "probe": "attacks",
    "threat": "budgets",
    "joint": "prompts attacked together",
    "select": "choice of the mask",
    "seed": "seed",
    "schema": "schema",
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One model of one run. name: unique on the board. rows: the strongest attack for each prompt kind, as the report's
    verdict takes it. clean: prompt kind to the clean row. questions: every cell, without the model."""

    name: str
    run: Path
    rows: tuple[Row, ...]
    clean: Mapping[str, Row]
    questions: tuple[Question, ...]
    env: Mapping[str, Any]

    @property
    def protocol(self) -> str:
        """16 hex digits of what was asked: protocol version and identity of a ranking."""
        return digest(sorted(canonical(_bare(q)) for q in self.questions))

    @property
    def slug(self) -> str:
        """A file name."""
        return safe_name(self.name)

    @property
    def weak(self) -> bool:
        """Below a bar on clean images: not a model to draw conclusions from."""
        return any(is_weak(row) for row in self.clean.values())


def gather(runs: Sequence[Path]) -> list[Entry]:
    """Every model of every run. Raises InputError for a run that cannot be ranked and for two protocols."""
    if not runs:
        raise InputError("A leaderboard of no run.", hint="Type: redsam leaderboard RUN RUN --out DIR")
    found = [entry for run in dict.fromkeys(_folder(r) for r in runs) for entry in _entries(run)]
    first = found[0]
    for other in found[1:]:
        if other.protocol != first.protocol:
            raise InputError(
                f"{_called(first)} and {_called(other)} cannot be ranked together: "
                f"they differ in {difference(first.questions, other.questions)}.",
                hint="Make a leaderboard of each protocol.",
            )
    return _unique(found)


def difference(ours: Sequence[Question], theirs: Sequence[Question]) -> str:
    """What the first differing part is, and the values that only one side has: `budgets (8/255 against 4/255)`."""
    for part, name in PARTS.items():
        left, right = ({canonical(_bare(q)[part]): q[part] for q in side} for side in (ours, theirs))
        if left.keys() != right.keys():
            only = [_brief(part, [v for k, v in a.items() if k not in b]) for a, b in ((left, right), (right, left))]
            return f"{name} ({only[0]} against {only[1]})"
    return "which attack met which budget and prompts"


def _folder(run: Path) -> Path:
    return run.parent if run.name == "summary.json" else run


def _entries(folder: Path) -> list[Entry]:
    run = read_run(folder)
    again = f"Type the same audit again, or: redsam report {folder}"
    if run.summary.get("unfinished"):
        raise InputError(f"{folder} is not finished: a mean over a part is no score.", hint=again)
    models = list(dict.fromkeys(row.model for row in run.rows))
    if not models:
        raise InputError(f"{folder} has no row to rank.", hint=again)
    return [_entry(run, [row for row in run.rows if row.model == model], model) for model in models]


def _entry(run: Run, rows: Sequence[Row], model: str) -> Entry:
    own = [row for row in rows if not row.raw.get("source")]  # images crafted on another model are that model's doing
    asked: dict[str, Question] = {}
    for row in own:
        question = row.raw.get("question")
        if not isinstance(question, Mapping):
            raise InputError(
                f"{run.out} does not say what was asked.", hint=f"Write its summary again: redsam report {run.out}"
            )
        asked[canonical(question)] = question
    headline = headline_rows(own)
    if not headline or headline[0].reference != GROUND_TRUTH:
        reason = "against its own clean prediction, which no other model shares" if headline else "under no attack"
        raise InputError(
            f"{run.out}: {model} was measured {reason}.", hint="Rank audits with ground truth and at least one attack."
        )
    return Entry(
        name=model, run=run.out, rows=tuple(sorted(headline, key=lambda r: r.prompt)),
        clean={r.prompt: r for r in clean_rows(own)}, questions=tuple(json.loads(q) for q in sorted(asked)),
        env=run.env,
    )  # fmt: skip


def _unique(found: Sequence[Entry]) -> list[Entry]:
    """Entries of one name get the name of their run behind it, and a number where that is not enough."""
    names = [e.name for e in found]
    out: list[Entry] = []
    for entry in found:
        name = entry.name if names.count(entry.name) == 1 else _called(entry)
        count = 2
        while any(name == other.name for other in out):
            name, count = f"{_called(entry)} {count}", count + 1
        out.append(Entry(**{**vars(entry), "name": name}))
    return out


def _called(entry: Entry) -> str:
    return f"{entry.name} ({entry.run.resolve().name})"


def _bare(question: Question) -> dict[str, Any]:
    """The question by its content: what a folder is called does not make another one of it."""
    return {**question, "data": {k: v for k, v in question["data"].items() if k != "name"}}


def _brief(part: str, values: Sequence[Any]) -> str:
    """A few words for some values of one part."""
    if not values:
        return "none"
    texts = dict.fromkeys(_word(part, value) for value in values)
    return ", ".join(list(texts)[:3]) + (", ..." if len(texts) > 3 else "")


def _word(part: str, value: Any) -> str:
    if part == "data":
        return f"{value['name']} {value['ids_hash'][:6]}/{value['fingerprint'][:6]}"
    if part == "threat":
        return "no attack" if value is None else " ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}"
                                                          for k, v in value.items() if v is not None)  # fmt: skip
    if isinstance(value, Mapping):
        options = value.get("args", {})
        return " ".join([str(value.get("name")), *(f"{k}={v}" for k, v in options.items() if v is not None)])
    return str(value)
