"""The board: who stands where with each prompt kind, as values; and what an entry's file says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from redsam.leaderboard.entries import Entry
from redsam.leaderboard.ranks import Standing, standings
from redsam.report import chart
from redsam.report.reading import Number, Row
from redsam.report.verdict import is_weak, plural, span

ENTRY_SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Place:
    """One entry in one ranking. standing: None for an entry that is not ranked; `why` then says the reason. tied:
    names of the entries it is not told apart from."""

    entry: Entry
    row: Row
    standing: Standing | None
    tied: tuple[str, ...] = ()
    why: str = ""

    @property
    def weak(self) -> bool:
        """Below the bar of this prompt kind."""
        clean = self.entry.clean.get(self.row.prompt)
        return clean is not None and is_weak(clean)


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """All entries with one prompt kind, best first, those without a rank at the end."""

    prompt: str
    heading: str
    places: tuple[Place, ...]
    lead: str
    svg: Markup


@dataclass(frozen=True, kw_only=True)
class Board:
    """The rankings, and each place by (prompt kind, entry)."""

    rankings: tuple[Ranking, ...]
    places: Mapping[tuple[str, str], Place]


def board(entries: Sequence[Entry]) -> Board:
    """Rank the entries with each prompt kind by the mIoU that the strongest attack leaves."""
    kinds = list(dict.fromkeys(row.prompt for entry in entries for row in entry.rows))
    rankings = tuple(_ranking(kind, entries) for kind in kinds)
    return Board(rankings=rankings, places={(r.prompt, p.entry.name): p for r in rankings for p in r.places})


def to_json(entry: Entry, shown: Board) -> dict[str, Any]:
    """The entry's file, with its ranks on this board."""
    return {
        "schema": ENTRY_SCHEMA,
        "name": entry.name,
        "protocol": {"version": entry.protocol, "questions": list(entry.questions)},
        "redsam": entry.env.get("redsam"),
        "environment": dict(entry.env),
        "weak": entry.weak,
        "scores": [_score(row, shown.places.get((row.prompt, entry.name))) for row in entry.rows],
    }


def _score(row: Row, place: Place | None) -> dict[str, Any]:
    standing = None if place is None else place.standing
    return {
        "prompt": row.prompt,
        "reference": row.reference,
        "attack": row.label,
        "budget": row.budget,
        "clean": _ends(row.clean),
        "robust": _ends(row.adv),
        "lost": _ends(row.delta),
        "asr50": _ends(row.asr50),
        "n_prompts": row.n_prompts,
        "n_images": row.n_images,
        "n_failed": row.n_failed,
        "rank": None if standing is None else [standing.best, standing.worst],
        "tied_with": [] if place is None else list(place.tied),
    }


def _ends(n: Number) -> dict[str, float | None]:
    return {"value": n.value, "lo": n.lo, "hi": n.hi}


def _ranking(kind: str, entries: Sequence[Entry]) -> Ranking:
    rows = [(e, row) for e in entries for row in e.rows if row.prompt == kind]
    whole = max(row.n_prompts for _, row in rows)
    fit = [(e, row) for e, row in rows if not (row.n_failed or row.n_prompts < whole) and row.adv.known]
    fit.sort(key=lambda pair: -(pair[1].adv.value or 0.0))
    found = standings([(r.adv.value or 0.0, r.adv.lo or 0.0, r.adv.hi or 0.0) for _, r in fit])
    places = [
        Place(entry=e, row=row, standing=s, tied=tuple(fit[j][0].name for j in s.tied))
        for (e, row), s in zip(fit, found, strict=True)
    ]
    ranked = {e.name for e, _ in fit}
    places += [Place(entry=e, row=row, standing=None, why=_why(row, whole)) for e, row in rows if e.name not in ranked]
    return Ranking(
        prompt=kind, heading=plural(kind)[:1].upper() + plural(kind)[1:], places=tuple(places),
        lead=_lead(places), svg=Markup(_chart(kind, places)),
    )  # fmt: skip


def _why(row: Row, whole: int) -> str:
    if row.n_failed:
        return f"{row.n_failed} images failed: a mean over the rest is over easier or harder images"
    if row.n_prompts < whole:
        return f"measured on {row.n_prompts} of {whole} prompts"
    return "no interval was measured"


def _lead(places: Sequence[Place]) -> str:
    """Who leads, in one sentence."""
    ranked = [p for p in places if p.standing is not None]
    first = [p for p in ranked if p.standing is not None and p.standing.best == 1]
    if not first:
        return "No entry is ranked."
    if len(ranked) == 1:
        return f"{first[0].entry.name} is the only entry."
    if len(first) == 1:
        return f"{first[0].entry.name} is surely ahead of the other {len(ranked) - 1}."
    if len(first) == len(ranked):
        return "No entry is surely ahead of another: their intervals overlap."
    return f"The first {len(first)} of {len(ranked)} are not told apart: their intervals overlap."


def _chart(kind: str, places: Sequence[Place]) -> str:
    items = [
        chart.Place(
            name=p.entry.name,
            value=p.row.adv.value or 0.0,
            lo=p.row.adv.lo or 0.0,
            hi=p.row.adv.hi or 0.0,
            clean=p.row.clean.value,
            text=span(p.row.adv),
            lead=p.standing is not None and p.standing.best == 1,
        )
        for p in places
        if p.standing is not None
    ]
    spoken = "; ".join(f"{item.name} {item.text}" for item in items)
    return chart.places_svg(items, title=f"mIoU under attack with {plural(kind)}: {spoken}") if items else ""
