"""report.html: one self-contained file. Gathers what the template shows; wording and layout live in templates/."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redsam.report import verdict as judge
from redsam.report.cases import pick
from redsam.report.conditions import conditions
from redsam.report.panels import contrast_sections, curve_panels
from redsam.report.reading import GROUND_TRUTH, Row, Run, budget_text, failures, number
from redsam.report.templating import render, script
from redsam.report.verdict import plural, span, verdicts

FAILURES_SHOWN = 200


@dataclass(frozen=True, kw_only=True)
class Table:
    """The rows of one reference."""

    reference: str
    rows: tuple[Row, ...]


def page(run: Run) -> str:
    """The whole HTML document as text."""
    judged, failed = verdicts(run.rows), _failures(run)
    headline = [row for v in judged for row in v.headline]
    cases = pick(run, headline)
    return render(
        "report.html.j2",
        filters={"span": span, "plural": plural, "nice": nice},
        weak_row=judge.is_weak,
        title=" and ".join(v.model for v in judged),
        **script(),
        verdicts=judged,
        counts=_counts(run),
        hero=cases[0] if cases else None,
        cases=cases[1:],
        panels=curve_panels(run.rows, judged),
        contrasts=contrast_sections(run, judged),
        conditions=conditions(run, judged),
        tables=_tables(run.rows),
        natural=all(r.severity is not None for r in run.rows if r.attacked) and any(r.attacked for r in run.rows),
        several=len(judged) > 1,
        weak={id(r) for r in run.rows if judge.is_weak(r)},
        bars=judge.BARS,
        failures=failed[:FAILURES_SHOWN],
        n_failures=len(failed),
        unfinished=run.unfinished,
        protocol=_protocol(run),
        env=_flat({k: v for k, v in run.env.items() if k != "command"}),
        commands=_commands(run),
        truth=GROUND_TRUTH,
    )


def nice(value: Any) -> str:
    """A JSON value in running text."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value, ensure_ascii=False, default=str)


def _counts(run: Run) -> dict[str, int]:
    return {
        "cells": len({r.cell for r in run.rows} | set(run.specs)),
        "images": max((r.n_images for r in run.rows), default=0),
        "prompts": max((r.n_prompts for r in run.rows), default=0),
    }


def _tables(rows: Sequence[Row]) -> list[Table]:
    references = sorted({r.reference for r in rows}, key=lambda name: name != GROUND_TRUTH)
    order = sorted(rows, key=lambda r: (r.model, r.prompt, r.attacked, r.attack, r.norm, r.eps or 0, r.severity or 0))
    return [Table(reference=name, rows=tuple(r for r in order if r.reference == name)) for name in references]


def _failures(run: Run) -> list[dict[str, str]]:
    """Failed and skipped images with their reasons, one line for an image that failed alike in several cells."""
    cells: dict[tuple[str, str, str], dict[str, None]] = {}
    for f in failures(run):
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
    if key == "defense":
        draws = f", random (seed {nice(value.get('seed'))}), attackers average over {nice(value.get('eot'))} draws"
        return str(value.get("label", "")) + (draws if value.get("eot", 1) != 1 else "")
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
