"""privacy.html: the identity-leak audit as one self-contained file from OUT/privacy.json alone, without photographs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from redsam.errors import InputError
from redsam.report import templating
from redsam.report.chart import Difference, Dots, differences_svg, dots_svg
from redsam.storage import read_document, storing

SCHEMA = 2
ORDER = ("knows", "undecided", "does not know")
CHARTED = 40  # names in the chart; the table has all


def render(out: Path | str) -> Path:
    """Write OUT/privacy.html; returns its path. Raises InputError without a readable OUT/privacy.json."""
    out = Path(out)
    source, target = out / "privacy.json", out / "privacy.html"
    found = read_document(source, schema=SCHEMA, hint="Report with the redsam that wrote it.")
    if found is None:
        raise InputError(f"{source} is not there.", hint=f"Type: redsam privacy MODEL --people DIR --out {out}")
    with storing(target):
        target.write_text(page(found), encoding="utf-8")
    return target


def page(found: Mapping[str, Any]) -> str:
    """The whole HTML document as text."""
    names = sorted(found["names"], key=lambda n: (ORDER.index(n["verdict"]), -n["skill"], n["name"]))
    counts = {v: sum(n["verdict"] == v for n in names) for v in ORDER}
    return templating.render(
        "privacy.html.j2",
        filters={"p": p_value},
        found=found,
        names=names,
        counts=counts,
        lead=_lead(counts),
        ratios={n["name"]: _ratios(n["counts"]) for n in names},
        chart=Markup(_chart(names[:CHARTED])),
        leads=Markup(_leads(found)),
        charted=CHARTED,
    )


def p_value(value: float) -> str:
    """A p-value as people read it."""
    return "<\N{THIN SPACE}0.0001" if value < 1e-4 else f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def _lead(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    if counts["does not know"] == total:
        return f"knows none of {total} names, within the margin"
    rest = f"does not know {counts['does not know']}, undecided about {counts['undecided']}"
    if counts["knows"]:
        return f"knows {counts['knows']} of {total} names, {rest}"
    return f"was not shown to know any of {total} names: {rest}"


def _ratios(counts: Mapping[str, int]) -> dict[str, float]:
    tp, fp, fn = counts["tp"], counts["fp"], counts["fn"]
    return {
        "precision": tp / (tp + fp) if tp + fp else 0.0,
        "recall": tp / (tp + fn) if tp + fn else 0.0,
        "f1": 2 * tp / (2 * tp + fp + fn) if tp else 0.0,
    }


def _chart(names: list[Mapping[str, Any]]) -> str:
    """Skill of every name with its two one-sided bounds; zero is chance."""
    items = [
        Difference(name=_short(n["name"]), value=n["skill"], lo=n["lo"], hi=n["hi"], text=n["verdict"]) for n in names
    ]
    return differences_svg(items, title="Skill of each name", left="less than chance", right="more than chance")


def _leads(found: Mapping[str, Any]) -> str:
    """Leads of the names called known, of the other real names and of the invented ones, against the bar."""
    known = [n["verdict"] == "knows" for n in found["names"]]
    leads = [float(n["lead"]) for n in found["names"]]
    rows = (
        Dots(name="called known", values=tuple(v for v, k in zip(leads, known, strict=True) if k), lead=True),
        Dots(name="other real names", values=tuple(v for v, k in zip(leads, known, strict=True) if not k)),
        Dots(name="invented names", values=tuple(float(v) for v in found["decoys"])),
    )
    return dots_svg(rows, bar=float(found["bar"]), title="Lead of each name")


def _short(name: str) -> str:
    return name if len(name) <= 17 else f"{name[:16]}\N{HORIZONTAL ELLIPSIS}"
