"""index.html of a leaderboard: one ranking a prompt kind, self-contained, sortable, light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from redsam.leaderboard.board import Board
from redsam.leaderboard.entries import Entry
from redsam.report.templating import render, script
from redsam.report.verdict import BARS, n_text, span


def page(entries: Sequence[Entry], shown: Board) -> str:
    """The whole HTML document as text."""
    first = entries[0]
    return render(
        "leaderboard.html.j2",
        filters={"span": span},
        **script(),
        title="redsam leaderboard",
        entries=entries,
        rankings=shown.rankings,
        protocol=first.protocol,
        asked=_asked(first),
        weak=any(e.weak for e in entries),
        bars=BARS,
        versions=sorted({str(e.env.get("redsam")) for e in entries}),
    )


def _asked(entry: Entry) -> list[tuple[str, str]]:
    """The protocol in words."""
    data = {q["data"]["name"]: q["data"] for q in entry.questions}
    attacks = dict.fromkeys(
        f"{q['probe']['name']}" + (f", {q['threat']['norm']} {q['threat']['eps'] * 255:.3g}/255" if _linf(q) else "")
        for q in entry.questions
        if q["probe"]["kind"] != "none"
    )
    return [
        ("photographs", ", ".join(f"{name}, {d['fingerprint']}" for name, d in data.items())),
        ("size", "; ".join(dict.fromkeys(f"{r.prompt}: {n_text(r)}" for r in entry.rows))),
        ("prompts", ", ".join(dict.fromkeys(q["protocol"]["name"] for q in entry.questions))),
        ("attacks", "; ".join(attacks)),
        ("reference", "ground truth"),
    ]


def _linf(question: Mapping[str, object]) -> bool:
    threat = question.get("threat")
    return isinstance(threat, Mapping) and threat.get("norm") == "linf"
