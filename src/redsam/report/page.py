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
from redsam.report.cases import Case, pick
from redsam.report.chart import Curve, Difference, Point, curves_svg, differences_svg
from redsam.report.reading import GROUND_TRUTH, Number, Row, Run, budget_text, number, records
from redsam.report.verdict import Verdict, plural, span, verdicts

FAILURES_SHOWN = 200


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One chart with its heading and the sentence below it."""

    heading: str
    svg: Markup
    caption: str


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
        loader=PackageLoader("redsam.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
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
        contrasts=_contrasts(run.contrasts),
        tables=_tables(run.rows),
        several=len(judged) > 1,
        weak={id(r) for r in run.rows if judge.is_weak(r)},
        bars=judge.BARS,
        failures=_failures(run)[:FAILURES_SHOWN],
        n_failures=len(_failures(run)),
        unfinished=run.unfinished,
        protocol=_protocol(run),
        env=_flat(run.env),
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
            if not group:
                continue
            lead = next((h.label for h in v.headline if h.prompt == prompt), group[0].label)
            curves = [_curve(group, name, lead=name == lead) for name in dict.fromkeys(r.label for r in group)]
            heading = ("" if len(judged) == 1 else f"{v.model}, ") + plural(prompt)
            heading += f" ({protocol})" if sum(k[:2] == (norm, prompt) for k in keys) > 1 else ""
            heading += f", {norm}" if norm != "linf" else ""
            bar = judge.BARS.get(prompt) if reference == GROUND_TRUTH else None
            svg = curves_svg(
                curves,
                title=f"mIoU against {reference} over the budget, {heading}: " + "; ".join(_spoken(c) for c in curves),
                x_label={"linf": "largest change of a channel, in 1/255", "l0": "pixels changed"}.get(norm, f"{norm} budget"),
                bar=bar,
            )
            n = group[0]
            caption = f"mIoU against {reference}, {judge.n_text(n)}. Dots are measured, lines only join them; bands are 95 % intervals."
            panels.append(Panel(heading=heading[:1].upper() + heading[1:], svg=Markup(svg), caption=caption))
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


def _contrasts(contrasts: Iterable[Mapping[str, Any]]) -> list[Panel]:
    """Paired differences with a zero line, one panel for each kind of contrast and reference."""
    groups: dict[tuple[str, str, str], list[Difference]] = {}
    for c in contrasts:
        value, lo, hi = number(c.get("delta")), number(c.get("delta_lo")), number(c.get("delta_hi"))
        if value is None or lo is None or hi is None:
            continue
        first, second = str(c.get("a", "box")), str(c.get("b", "point"))
        threat = c.get("threat") if isinstance(c.get("threat"), dict) else {}
        budget = budget_text(str((threat or {}).get("norm", "linf")), number(c.get("eps")))
        name = ", ".join(str(p) for p in (c.get("model"), c.get("attack"), "" if budget == "none" else budget) if p)
        item = Difference(name=name, value=value, lo=lo, hi=hi, text=span(Number(value=value, lo=lo, hi=hi), signed=True))
        groups.setdefault((first, second, str(c.get("reference", GROUND_TRUTH))), []).append(item)
    panels = []
    for (first, second, reference), items in groups.items():
        above = sum(d.lo > 0 for d in items)
        below = sum(d.hi < 0 for d in items)
        caption = (
            f"mIoU against {reference} with {plural(first)} minus the same with {plural(second)}, paired on the same images. "
            f"The whole interval lies above zero in {above} of {len(items)}, below in {below}; the others are undecided."
        )
        svg = differences_svg(
            items, title=f"{first} minus {second}: " + "; ".join(f"{d.name} {d.text}" for d in items),
            left=f"{plural(second)} better", right=f"{plural(first)} better",
        )
        panels.append(Panel(heading=f"{first} against {second}".capitalize(), svg=Markup(svg), caption=caption))
    return panels


def _failures(run: Run) -> list[dict[str, str]]:
    """Failed and skipped images with their reasons: the summary's list, else the records themselves."""
    source: Iterable[Mapping[str, Any]] = run.failures or (
        {"cell": cell, **r} for cell in sorted(run.specs) for r in records(run, cell) if r.get("status") in ("failed", "skipped")
    )
    label = {r.cell: f"{r.model}, {r.label} {r.budget}, {r.protocol}".replace(" none", "") for r in run.rows}
    return [
        {
            "cell": label.get(str(f.get("cell", "")), str(f.get("cell", ""))),
            "sample": str(f.get("sample", "")),
            "status": str(f.get("status", "failed")),
            "reason": str(f.get("reason") or "no reason was recorded"),
        }
        for f in source
    ]


def _protocol(run: Run) -> list[tuple[str, list[str]]]:
    """What was asked, gathered over all cells: each distinct model, data slice, protocol, probe and threat once."""
    found: dict[str, dict[str, None]] = {}
    for spec in run.specs.values():
        for key in ("model", "defense", "data", "protocol", "probe", "threat", "select", "joint", "seed"):
            value = spec.get(key)
            if value is not None:
                found.setdefault(key, {})[_describe(key, value)] = None
    names = {"select": "mask chosen by", "joint": "prompts of an image attacked together"}
    return [(names.get(key, key), list(values)) for key, values in found.items()]


def _describe(key: str, value: Any) -> str:
    if not isinstance(value, Mapping):
        return nice(value)
    if key == "threat":
        budget = budget_text(str(value.get("norm", "linf")), number(value.get("eps")))
        rest = {k: v for k, v in value.items() if k not in ("norm", "eps") and v is not None}
        return f"{value.get('norm', 'linf')} {budget}" + "".join(f", {k} {nice(v)}" for k, v in rest.items())
    name = str(value.get("name", ""))
    arguments = value.get("args")
    rest = {k: v for k, v in value.items() if k not in ("name", "args") and v is not None}
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
