"""report.html: one self-contained file. Gathers what the template shows; wording and layout live in templates/."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from redsam.report import verdict as judge
from redsam.report.cases import pick
from redsam.report.chart import Curve, Difference, Point, curves_svg, differences_svg
from redsam.report.reading import GROUND_TRUTH, Number, Row, Run, budget_text, number, records
from redsam.report.verdict import Verdict, plural, span, verdicts

FAILURES_SHOWN = 200
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


@dataclass(frozen=True, kw_only=True)
class Table:
    """The rows of one reference."""

    reference: str
    rows: tuple[Row, ...]


def page(run: Run) -> str:
    """The whole HTML document as text."""
    judged = verdicts(run.rows)
    headline = [row for v in judged for row in v.headline]
    cases = pick(run, headline)
    style, script = _asset("style.css"), _asset("script.js")
    environment = Environment(
        loader=PackageLoader("redsam.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"span": span, "two": two, "plural": plural, "nice": nice}
    environment.globals["weak_row"] = judge.is_weak
    return environment.get_template("report.html.j2").render(
        title=" and ".join(v.model for v in judged),
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        verdicts=judged,
        counts=_counts(run),
        hero=cases[0] if cases else None,
        cases=cases[1:],
        panels=_panels(run.rows, judged),
        contrasts=_contrasts(run, judged),
        tables=_tables(run.rows),
        several=len(judged) > 1,
        weak={id(r) for r in run.rows if judge.is_weak(r)},
        bars=judge.BARS,
        failures=_failures(run)[:FAILURES_SHOWN],
        n_failures=len(_failures(run)),
        unfinished=run.unfinished,
        protocol=_protocol(run),
        env=_flat({k: v for k, v in run.env.items() if k != "command"}),
        commands=_commands(run),
        truth=GROUND_TRUTH,
    )


def two(value: float | None, digits: int = 3) -> str:
    """A number for the table; a dash where nothing was measured, a real minus sign."""
    return "\N{EN DASH}" if value is None else f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def nice(value: Any) -> str:
    """A JSON value in running text."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value, ensure_ascii=False, default=str)


def _asset(name: str) -> str:
    return resources.files("redsam.report").joinpath("templates", name).read_text(encoding="utf-8")


def _counts(run: Run) -> dict[str, int]:
    return {
        "cells": len({r.cell for r in run.rows} | set(run.specs)),
        "images": max((r.n_images for r in run.rows), default=0),
        "prompts": max((r.n_prompts for r in run.rows), default=0),
    }


def _tables(rows: Sequence[Row]) -> list[Table]:
    references = sorted({r.reference for r in rows}, key=lambda name: name != GROUND_TRUTH)
    order = sorted(rows, key=lambda r: (r.model, r.prompt, r.attacked, r.attack, r.norm, r.eps or 0))
    return [Table(reference=name, rows=tuple(r for r in order if r.reference == name)) for name in references]


def _panels(rows: Sequence[Row], judged: Sequence[Verdict]) -> list[Panel]:
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


def _contrasts(run: Run, judged: Sequence[Verdict]) -> list[Section]:
    """Paired differences with a zero line: one section a pair of prompt kinds, what is left and what was lost."""
    reference = next((v.headline[0].reference for v in judged if v.headline), GROUND_TRUTH)
    label = {r.cell: r.label if r.attacked else "clean" for r in run.rows}
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


def _failures(run: Run) -> list[dict[str, str]]:
    """Failed and skipped images with their reasons, one line for an image that failed alike in several cells."""
    source: Iterable[Mapping[str, Any]] = run.failures or (
        {"cell": cell, **r}
        for cell in sorted(run.specs)
        for r in records(run, cell)
        if r.get("status") in ("failed", "skipped")
    )
    cells: dict[tuple[str, str, str], dict[str, None]] = {}
    for f in source:
        key = (
            str(f.get("sample", "")),
            str(f.get("status", "failed")),
            str(f.get("reason") or "no reason was recorded"),
        )
        cells.setdefault(key, {})[str(f.get("cell", ""))] = None
    label = {r.cell: f"{r.model}, {r.label} {r.budget}, {r.protocol}".replace(" none", "") for r in run.rows}
    return [
        {
            "sample": sample,
            "status": status,
            "reason": reason,
            "where": f"{len(ids)} cells" if len(ids) > 1 else label.get(next(iter(ids)), next(iter(ids))),
        }
        for (sample, status, reason), ids in cells.items()
    ]


def _protocol(run: Run) -> list[tuple[str, list[str]]]:
    """What was asked, gathered over all cells: each distinct model, data slice, protocol, probe and threat once."""
    found: dict[str, dict[str, None]] = {}
    for spec in sorted(run.specs.values(), key=_by_eps):
        for key in ("model", "defense", "data", "protocol", "probe", "threat", "select", "joint", "seed"):
            value = spec.get(key)
            if value is not None and not (key == "probe" and value.get("kind") == "none"):
                found.setdefault(key, {})[_describe(key, value)] = None
    names = {"select": "mask chosen by", "joint": "prompts of an image attacked together"}
    return [(names.get(key, key), list(values)) for key, values in found.items()]


def _by_eps(spec: Mapping[str, Any]) -> float:
    threat = spec.get("threat")
    return (number(threat.get("eps")) or 0.0) if isinstance(threat, Mapping) else 0.0


def _describe(key: str, value: Any) -> str:
    if not isinstance(value, Mapping):
        return nice(value)
    if key == "threat":
        budget = budget_text(str(value.get("norm", "linf")), number(value.get("eps")))
        rest = {k: v for k, v in value.items() if k not in ("norm", "eps") and v is not None}
        return f"{value.get('norm', 'linf')} {budget}" + "".join(f", {k} {nice(v)}" for k, v in rest.items())
    name = str(value.get("name", ""))
    arguments = value.get("args")
    rest = {k: v for k, v in value.items() if k not in ("name", "args", "kind") and v is not None}
    rest |= dict(arguments) if isinstance(arguments, Mapping) else {}
    return name + "".join(f", {k} {nice(v)}" for k, v in rest.items())


def _flat(env: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    out: list[tuple[str, str]] = []
    for key, value in env.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            out += _flat(value, f"{name} ")
        elif value is not None:
            out.append((name, nice(value)))
    return out


def _commands(run: Run) -> list[str]:
    given = run.summary.get("command") or run.env.get("command")
    said = " ".join(str(p) for p in given) if isinstance(given, list) else str(given or "")
    return [c for c in (said, f"redsam report {run.out.name or run.out}") if c]
