"""junit.xml beside the report, so that a CI server can gate on an audit: one test case a cell.

A case fails when an image of the cell failed, when a delivered image lies outside its budget, or when a gate is
crossed; it is an error when the cell is not finished. Every number of its rows is a property.
"""

from __future__ import annotations

import operator
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redsam.errors import InputError
from redsam.registry import unknown
from redsam.report.reading import Row, Run, failures, number

COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
NUMBERS = [
    "miou_clean",
    "miou_clean_lo",
    "miou_clean_hi",
    "miou_adv",
    "miou_adv_lo",
    "miou_adv_hi",
    "delta",
    "delta_lo",
    "delta_hi",
    "asr50",
    "asr50_lo",
    "asr50_hi",
    "asr10",
    "asr10_lo",
    "asr10_hi",
    "biou_clean",
    "biou_adv",
    "psnr",
    "ssim",
    "linf_max",
    "seconds",
    "peak_mb",
    "n_prompts",
    "n_images",
    "n_failed",
]
FAILURES_NAMED = 20
# XML 1.0 cannot hold these characters, not even as entities.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(run: Run, gates: Mapping[str, str] | None = None) -> str:
    """The XML as text. gates: number of a row to what it must be, {"miou_adv": ">= 0.3"}; every row under attack must
    pass (every row at all for numbers of clean images).

    Raises InputError for a gate on an unknown number or without a comparison.
    """
    checks = {name: _gate(name, text) for name, text in (gates or {}).items()}
    root = ET.Element("testsuites", name="redsam")
    suites: dict[str, ET.Element] = {}
    broken: dict[str, list[Mapping[str, Any]]] = {}
    for one in failures(run):
        if one.get("status") == "failed":
            broken.setdefault(str(one.get("cell")), []).append(one)
    by_cell: dict[str, list[Row]] = {}
    for row in run.rows:
        by_cell.setdefault(row.cell, []).append(row)
    for cell in dict.fromkeys([*by_cell, *run.specs]):
        rows = by_cell.get(cell, [])
        model = rows[0].model if rows else str((run.specs[cell].get("model") or {}).get("name", "model"))
        suite = suites.get(model)
        if suite is None:
            suite = suites[model] = ET.SubElement(root, "testsuite", name=_clean(model))
        _case(suite, run, cell, rows, checks, broken.get(cell, []))
    for element in (*suites.values(), root):
        cases = list(element.iter("testcase"))
        element.set("tests", str(len(cases)))
        for kind in ("failure", "error", "skipped"):
            name = {"failure": "failures", "error": "errors"}.get(kind, kind)
            element.set(name, str(sum(c.find(kind) is not None for c in cases)))
        element.set("time", f"{sum(float(c.get('time', 0)) for c in cases):.3f}")
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _case(
    suite: ET.Element, run: Run, cell: str, rows: Sequence[Row], checks: Mapping[str, tuple[str, float]],
    failed: Sequence[Mapping[str, Any]],
) -> None:  # fmt: skip
    spec = run.specs.get(cell, {})
    probe = rows[0].label if rows else str((spec.get("probe") or {}).get("name") or "none")
    label = " ".join(dict.fromkeys([probe, *([rows[0].budget, rows[0].protocol] if rows else []), f"[{cell}]"]))
    seconds = sum(number(r.raw.get("seconds")) or 0 for r in rows[:1])
    case = ET.SubElement(
        suite, "testcase", classname=_clean(f"redsam.{suite.get('name')}"), name=_clean(label), time=f"{seconds:.3f}"
    )
    properties = ET.SubElement(case, "properties")
    for row in rows:
        for key in NUMBERS:
            value = number(row.raw.get(key))
            if value is not None:
                name = f"{row.reference}/{row.prompt}/{key}"
                ET.SubElement(properties, "property", name=_clean(name), value=repr(value))
    problems = [f"{r.get('sample')}: {r.get('reason') or 'no reason was recorded'}" for r in failed[:FAILURES_NAMED]]
    n_failed = max(len(failed), *(r.n_failed for r in rows), 0)
    if n_failed:
        _fail(case, "failed-records", f"{n_failed} images failed", problems)
    over = [r for r in rows if budget_exceeded(r, spec)]
    if over:
        worst = max(r.linf_max or 0 for r in over)
        _fail(case, "budget-violation", f"largest change {worst * 255:.3g}/255, allowed {over[0].budget}", [])
    for name, (sign, limit) in checks.items():
        for row in (r for r in rows if r.attacked or name.endswith("_clean")):
            value = number(row.raw.get(name))
            if value is None or not COMPARE[sign](value, limit):
                _fail(case, "gate", f"{name} {sign} {limit:g} is not met: {value} ({row.prompt}, {row.reference})", [])
    if cell in run.unfinished:
        ET.SubElement(case, "error", type="unfinished", message="this cell is not finished; run the audit again")
    elif not rows and not n_failed:
        ET.SubElement(case, "skipped", message="no image of this cell has a number")


def budget_exceeded(row: Row, spec: Mapping[str, object]) -> bool:
    """The largest measured change is over an linf budget that is meant in original pixels."""
    threat = spec.get("threat")
    threat = threat if isinstance(threat, Mapping) else {}
    if row.norm != "linf" or row.eps is None or row.linf_max is None or threat.get("space", "image") != "image":
        return False
    slack = 1e-6 if threat.get("lattice", True) else 0.5 / 255 + 1e-6  # off the lattice, rounding may add half a level
    return row.linf_max > row.eps + slack


def _gate(name: str, text: str) -> tuple[str, float]:
    if name not in NUMBERS:
        raise unknown("number to gate on", name, list(NUMBERS))
    match = re.fullmatch(r"\s*(>=|<=|>|<)\s*(-?\d+(?:\.\d+)?)\s*", text)
    if match is None:
        raise InputError(f"Gate '{text}' on {name} is not a comparison.", hint=f"Type it like: {name} '>= 0.3'")
    return match[1], float(match[2])


def _fail(case: ET.Element, kind: str, message: str, lines: Sequence[str]) -> None:
    element = ET.SubElement(case, "failure", type=kind, message=_clean(message))
    element.text = _clean("\n".join(lines)) or None


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
