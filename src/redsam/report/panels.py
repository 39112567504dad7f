"""The charts of the page with their headings and captions: curves over the budget, paired differences of prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from redsam.report import verdict as judge
from redsam.report.chart import Curve, Difference, Point, curves_svg, differences_svg
from redsam.report.reading import GROUND_TRUTH, Number, Row, Run, budget_text, number
from redsam.report.verdict import Verdict, plural, span

MEASURES = {"miou_adv": "mIoU left", "delta": "mIoU lost"}


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One chart with its heading and the sentence below it."""

    heading: str
    svg: Markup
    caption: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading with charts below it."""

    heading: str
    panels: tuple[Panel, ...]


def curve_panels(rows: Sequence[Row], judged: Sequence[Verdict]) -> list[Panel]:
    """One panel for each model, protocol, prompt kind and norm, of the reference the verdict uses."""
    panels = []
    for v in judged:
        if not v.headline:
            continue
        reference = v.headline[0].reference
        mine = [r for r in rows if r.model == v.model and r.reference == reference and r.attacked and r.adv.known]
        keys = dict.fromkeys((r.norm, r.prompt, r.protocol) for r in mine)
        for norm, prompt, protocol in keys:
            group = [r for r in mine if (r.norm, r.prompt, r.protocol) == (norm, prompt, protocol) and r.eps]
            if not group or prompt == judge.MIXED:
                continue
            lead = next((h.label for h in v.headline if h.prompt == prompt), group[0].label)
            curves = [_curve(group, name, lead=name == lead) for name in dict.fromkeys(r.label for r in group)]
            heading = ("" if len(judged) == 1 else f"{v.model}, ") + plural(prompt)
            heading += f" ({protocol})" if sum(k[:2] == (norm, prompt) for k in keys) > 1 else ""
            heading += f", {norm}" if norm != "linf" else ""
            svg = curves_svg(
                curves,
                title=f"mIoU against {reference} over the budget, {heading}: " + "; ".join(_spoken(c) for c in curves),
                x_label={"linf": "largest change of a channel, in 1/255", "l0": "pixels changed"}.get(
                    norm, f"{norm} budget"
                ),
            )
            n = group[0]
            caption = (
                f"mIoU against {reference}, {judge.n_text(n)}. Dots are measured, lines only join them; "
                "bands are 95 % intervals."
            )
            panels.append(
                Panel(
                    heading=heading if len(judged) > 1 else heading[:1].upper() + heading[1:],
                    svg=Markup(svg),
                    caption=caption,
                )
            )
    return panels


def _curve(group: Sequence[Row], attack: str, *, lead: bool) -> Curve:
    """Measured budgets of one attack, from the clean model at zero."""
    mine = sorted((r for r in group if r.label == attack), key=lambda r: r.eps or 0)
    points = [_point(0.0, mine[0].clean, "0")] if mine[0].clean.known else []
    for r in mine:
        x = (r.eps or 0) * 255 if r.norm == "linf" else (r.eps or 0)
        points.append(_point(x, r.adv, f"{x:.3g}"))
    return Curve(name=attack, points=tuple(points), lead=lead)


def _point(x: float, n: Number, label: str) -> Point:
    y, lo, hi = n.value or 0.0, n.lo or 0.0, n.hi or 0.0
    return Point(x=x, y=y, lo=lo, hi=hi, label=label)


def _spoken(curve: Curve) -> str:
    return f"{curve.name} " + ", ".join(f"{p.y:.2f} at {p.label}" for p in curve.points)


def contrast_sections(run: Run, judged: Sequence[Verdict]) -> list[Section]:
    """Paired differences with a zero line: one section a pair of prompt kinds, what is left and what was lost."""
    reference = next((v.headline[0].reference for v in judged if v.headline), GROUND_TRUTH)
    label = {
        r.cell: "clean" if not r.attacked else r.label if r.severity is None else f"{r.label} {r.severity}"
        for r in run.rows
    }
    groups: dict[tuple[str, str], dict[str, list[Difference]]] = {}
    for c in sorted(
        run.contrasts, key=lambda c: (str(c.get("model")), number(c.get("eps")) or 0, str(c.get("attack")))
    ):
        value, lo, hi = number(c.get("value")), number(c.get("lo")), number(c.get("hi"))
        if (
            value is None
            or lo is None
            or hi is None
            or c.get("reference") != reference
            or c.get("measure") not in MEASURES
        ):
            continue
        pair = (str(c.get("first")), str(c.get("second")))
        threat = c.get("threat")
        budget = budget_text(str(threat.get("norm")), number(c.get("eps"))) if isinstance(threat, Mapping) else ""
        name = " ".join(p for p in (label.get(next(iter(c.get("cells") or [""])), str(c.get("attack"))), budget) if p)
        name = f"{c.get('model')}, {name}" if len(judged) > 1 else name
        item = Difference(
            name=name, value=value, lo=lo, hi=hi, text=span(Number(value=value, lo=lo, hi=hi), signed=True)
        )
        groups.setdefault(pair, {}).setdefault(str(c["measure"]), []).append(item)
    sections = []
    for (first, second), measures in groups.items():
        panels = []
        for measure in (m for m in MEASURES if m in measures):
            items = measures[measure]
            sides = (plural(second), plural(first)) if measure == "miou_adv" else (plural(first), plural(second))
            spoken = f"{MEASURES[measure]}, {first} minus {second}: " + "; ".join(f"{d.name} {d.text}" for d in items)
            svg = differences_svg(items, title=spoken, left=f"{sides[0]} better", right=f"{sides[1]} better")
            above, below = sum(d.lo > 0 for d in items), sum(d.hi < 0 for d in items)
            caption = (
                f"{plural(first).capitalize()} minus {plural(second)}, paired on the same images, against {reference}. "
                f"Of {len(items)} intervals {above} lie above zero, {below} below, "
                f"{len(items) - above - below} straddle it."
            )
            panels.append(Panel(heading=MEASURES[measure], svg=Markup(svg), caption=caption))
        sections.append(Section(heading=f"{first} against {second}".capitalize(), panels=tuple(panels)))
    return sections
