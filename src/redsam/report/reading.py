"""Read a finished (or half finished) run: OUT/summary.json and OUT/records, nothing else. No model, no data set.

A number that was not measured stays None all the way to the page, where it prints as a dash; it never becomes 0.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redsam.errors import InputError

GROUND_TRUTH = "ground truth"
_PICTURE = re.compile(rb'"image"\s*:\s*"')  # in the line of every record that has one
USUAL_OBJECTIVE = "vanish"  # what an attack minimises unless it says otherwise; not worth repeating in every label


@dataclass(frozen=True, kw_only=True)
class Number:
    """A mean with its interval; each part may be unmeasured."""

    value: float | None = None
    lo: float | None = None
    hi: float | None = None

    @property
    def known(self) -> bool:
        """Value and both ends of the interval are there."""
        return None not in (self.value, self.lo, self.hi)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: one cell, one prompt kind, one reference. `raw` is the line as summary.json has it.

    label: the attack as the page calls it, told apart by its steps and objective (`pgd-40 feature-cosine`) and by where
    its images were made, when that was elsewhere (`pgd-40 from lab-b, box`).
    severity: of a corruption, 1 to 5; it has no budget. delta: the loss, clean minus attacked, paired.
    """

    cell: str
    model: str
    attack: str
    label: str
    norm: str
    eps: float | None
    prompt: str
    protocol: str
    reference: str
    n_prompts: int
    n_images: int
    n_failed: int
    clean: Number
    adv: Number
    delta: Number
    asr50: Number
    asr10: Number
    psnr: float | None
    linf_max: float | None
    raw: Mapping[str, Any]
    severity: int | None = None

    @property
    def attacked(self) -> bool:
        """False for a cell that only looks at clean images."""
        return self.attack not in ("none", "clean", "")

    @property
    def budget(self) -> str:
        """The threat as people write it: 8/255, l2 0.5, 100 px; of a corruption its severity."""
        if self.severity is not None:
            return f"severity {self.severity}"
        return budget_text(self.norm, self.eps)


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything the page shows. specs and envs are keyed by cell; `unfinished` lists cells without their DONE mark."""

    out: Path
    rows: tuple[Row, ...]
    contrasts: tuple[Mapping[str, Any], ...]
    failures: tuple[Mapping[str, Any], ...]
    env: Mapping[str, Any]
    specs: Mapping[str, Mapping[str, Any]]
    unfinished: tuple[str, ...]
    summary: Mapping[str, Any]


def number(value: Any) -> float | None:
    """A finite float, or None for what JSON calls null, NaN or something else altogether."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def budget_text(norm: str, eps: float | None) -> str:
    """`8/255` for linf on the 8-bit lattice, otherwise the norm and its size."""
    if eps is None:
        return "none"
    if norm == "l0":
        return f"{eps:g} px"
    if norm == "linf":
        level = eps * 255
        return f"{round(level)}/255" if abs(level - round(level)) < 1e-6 else f"{level:.3g}/255"
    return f"{norm} {eps:.3g}"


def read_run(out: Path) -> Run:
    """OUT to a Run. Raises InputError, with what to type, when there is no readable summary."""
    path = out / "summary.json"
    if not path.is_file():
        where = "does not exist" if not out.exists() else "holds no summary.json"
        raise InputError(f"{out} {where}, so there is nothing to report.", hint=f"Type: redsam audit MODEL --out {out}")
    summary = _json(path)
    if not isinstance(summary, dict) or not isinstance(summary.get("cells"), list):
        raise InputError(f"{path} is not a summary of an audit.", hint=f"Type: redsam audit MODEL --out {out}")
    if summary.get("schema") != 1:
        raise InputError(
            f"{path} has schema {summary.get('schema')!r}; this version reads schema 1.",
            hint="Report with the version of redsam that wrote the run.",
        )
    specs: dict[str, Mapping[str, Any]] = {}
    lines = [line for line in summary["cells"] if isinstance(line, dict)]
    several = len({line.get("data") for line in lines}) > 1
    unfinished = []
    for folder in sorted(p for p in (out / "records").glob("*") if p.is_dir()):
        if (folder / "spec.json").is_file():
            spec = _json(folder / "spec.json")
            specs[folder.name] = spec if isinstance(spec, dict) else {}
        if not (folder / "DONE").exists():
            unfinished.append(folder.name)
    return Run(
        out=out,
        rows=tuple(_row(line, specs, several) for line in lines),
        contrasts=tuple(c | {"model": _who(c, several)} for c in summary.get("contrasts") or () if isinstance(c, dict)),
        failures=tuple(f for f in summary.get("failures") or () if isinstance(f, dict)),
        env=summary.get("env") or {},
        specs=specs,
        unfinished=tuple(unfinished),
        summary=summary,
    )


def records(run: Run, cell: str) -> Iterator[dict[str, Any]]:
    """The image records of a cell one by one, in file order; a line torn by a killed run is passed over."""
    return (record for _, record in located(run, cell))


def located(
    run: Run, cell: str, *, naming: Collection[str] = (), pictured: bool = False
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The same, each with the place where it begins, for `record_at`. naming: only images of these names. pictured:
    those without a picture may be left out."""
    path = run.out / "records" / cell / "samples.jsonl"
    if not path.is_file():
        return
    wanted = [json.dumps(name, ensure_ascii=ascii).encode() for name in naming for ascii in (True, False)]
    place = 0
    with path.open("rb") as lines:
        for line in lines:
            here, place = place, place + len(line)
            if (wanted and not any(name in line for name in wanted)) or (pictured and not _PICTURE.search(line)):
                continue
            record = _record(line)
            if record is not None and (not naming or record.get("sample") in naming):
                yield here, record


def record_at(run: Run, cell: str, place: int) -> dict[str, Any]:
    """The record that begins there."""
    with (run.out / "records" / cell / "samples.jsonl").open("rb") as lines:
        lines.seek(place)
        return _record(lines.readline()) or {}


def failures(run: Run) -> Iterator[Mapping[str, Any]]:
    """Images that were not measured, with their `cell` and the reason: as the summary says, else from the records."""
    if "failures" in run.summary:
        yield from run.failures
        return
    for cell in sorted(run.specs):
        yield from ({"cell": cell, **r} for r in records(run, cell) if r.get("status") in ("failed", "skipped"))


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line.decode("utf-8", "replace"))
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.", hint="Run the audit again; it goes on.") from error


def _row(line: Mapping[str, Any], specs: Mapping[str, Mapping[str, Any]], several: bool) -> Row:
    """several: there are several data sets, and each is judged apart."""
    cell = str(line.get("cell", ""))
    threat = line.get("threat") if isinstance(line.get("threat"), dict) else specs.get(cell, {}).get("threat")
    threat = threat if isinstance(threat, dict) else {}
    norm = str(threat.get("norm") or line.get("norm") or "linf")

    def triple(key: str) -> Number:
        return Number(value=number(line.get(key)), lo=number(line.get(f"{key}_lo")), hi=number(line.get(f"{key}_hi")))

    return Row(
        cell=cell,
        model=_who(line, several),
        attack=str(line.get("attack") or "none"),
        label=_label(str(line.get("attack") or "none"), specs.get(cell, {}).get("probe") or line) + _origin(line),
        norm=norm,
        eps=number(line.get("eps")),
        prompt=str(line.get("prompt_kind") or line.get("protocol") or "any prompt"),
        protocol=str(line.get("protocol", "")),
        reference=str(line.get("reference", GROUND_TRUTH)),
        n_prompts=int(number(line.get("n_prompts")) or 0),
        n_images=int(number(line.get("n_images")) or 0),
        n_failed=int(number(line.get("n_failed")) or 0),
        clean=triple("miou_clean"),
        adv=triple("miou_adv"),
        delta=triple("delta"),
        asr50=triple("asr50"),
        asr10=triple("asr10"),
        psnr=number(line.get("psnr")),
        linf_max=number(line.get("linf_max")),
        raw=line,
        severity=None if (severity := number(line.get("severity"))) is None else int(severity),
    )


def _who(line: Mapping[str, Any], several: bool) -> str:
    return str(line.get("model", "model")) + (f" on {line.get('data')}" if several else "")


def _label(attack: str, probe: Any) -> str:
    arguments = probe.get("args") if isinstance(probe, dict) else None
    arguments = arguments if isinstance(arguments, dict) else {}
    steps, objective = number(arguments.get("steps")), arguments.get("objective")
    name = f"{attack}-{steps:g}" if steps and attack != "fgsm" else attack
    return f"{name} {objective}" if objective and objective != USUAL_OBJECTIVE else name


def _origin(line: Mapping[str, Any]) -> str:
    """Model and prompts that the images were made with, where they are not the row's own."""
    source, prompts = line.get("source"), line.get("attacker_protocol")
    if not source:
        return ""
    return f" from {source}" + (f", {prompts}" if prompts and prompts != line.get("protocol") else "")
