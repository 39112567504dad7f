"""Tables of a study: measured rows and published ones side by side, every row marked with where it comes from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redsam.bench.spec import JsonDict

MEASURED, PUBLISHED = "measured", "another model and data"

# Headings; what is not here is its own heading. Shares and IoU are in [0, 1], also those published in percent.
HEADINGS: Mapping[str, str] = {
    "n_images": "images",
    "n_prompts": "prompts",
    "n_failed": "failed",
    "clean": "clean mIoU",
    "miou": "mIoU",
    "sd": "sd over prompts",
    "asr50": "ASR@50",
    "asr10": "ASR@10",
    "prompt": "prompt kind",
    "eps": "eps x 255",
    "cost": "clean cost",
    "static_gain": "static gain",
    "adaptive_gain": "adaptive gain",
    "seconds": "s / image",
    "judged": "judged by",
}
NUMBERS = ("n_images", "n_prompts", "n_failed", "clean", "miou", "sd", "asr50", "asr10", "reference", "origin")


@dataclass(frozen=True, kw_only=True)
class Table:
    """columns: keys of the rows in the order they print. A number `x` with `x_lo` and `x_hi` beside prints with its
    interval. rows: JSON-ready; each has "origin", `MEASURED` or `PUBLISHED`. figure: a file beside study.md, "" for
    none."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[JsonDict, ...]
    figure: str = ""

    def to_json(self) -> JsonDict:
        """Title, columns and rows, and the figure where there is one."""
        drawn = {"figure": self.figure} if self.figure else {}
        return {"title": self.title, "columns": list(self.columns), "rows": list(self.rows)} | drawn

    def markdown(self) -> str:
        """A heading and a pipe table."""
        lines = [f"## {self.title}", "", *([f"![{self.title}]({self.figure})", ""] if self.figure else [])]
        lines.append("| " + " | ".join(HEADINGS.get(c, c) for c in self.columns) + " |")
        lines.append("|" + " --- |" * len(self.columns))
        lines += ["| " + " | ".join(cell(row, c) for c in self.columns) + " |" for row in self.rows]
        return "\n".join(lines)


def cell(row: JsonDict, name: str) -> str:
    """One value in words: `0.512 [0.480, 0.544]`, a dash where nothing is known."""
    value = row.get(name)
    if value is None:
        return "\N{EN DASH}"
    if not isinstance(value, float):
        return str(value).replace("|", "\\|")
    lo, hi = row.get(f"{name}_lo"), row.get(f"{name}_hi")
    if lo is None or hi is None:
        return number(value)
    largest = max(map(abs, (value, lo, hi)))
    return "{} [{}, {}]".format(*(number(v, beside=largest) for v in (value, lo, hi)))


def number(value: float, *, beside: float | None = None) -> str:
    """Three decimals; whole from 100 on, three digits where three decimals would be nothing. beside: the largest of its
    interval, like which it is written."""
    size = abs(value) if beside is None else beside
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3f}" if value == 0 or size >= 1e-3 else f"{value:.3g}"  # -0.000: on which side an end lies


def measured(row: JsonDict, **keys: Any) -> JsonDict:
    """A row of summary.json as a row of a table, with `keys` in front."""
    out: JsonDict = {**keys, "origin": MEASURED, "cell": row["cell"], "reference": row["reference"]}
    out |= {name: row[name] for name in ("n_images", "n_prompts", "n_failed")}
    for name, there in (("clean", "miou_clean"), ("miou", "miou_adv"), ("asr50", "asr50"), ("asr10", "asr10")):
        out |= {f"{name}{end}": row[f"{there}{end}"] for end in ("", "_lo", "_hi")}
    return out | {"sd": row["sd_adv"], "eps": _levels(row["eps"])}


def _levels(eps: float | None) -> float | None:
    """In grey levels, without the noise of a division by 255; whole where it is; None without a budget."""
    if eps is None:
        return None
    levels = round(eps * 255, 6)
    return int(levels) if levels == int(levels) else levels


def published(source: str, **values: Any) -> JsonDict:
    """A published row; source: where the numbers were found."""
    return {**values, "origin": PUBLISHED, "source": source}


def beside(ours: Iterable[JsonDict], theirs: Iterable[JsonDict], *, by: Sequence[str]) -> tuple[JsonDict, ...]:
    """Measured rows in their order, each group of equal `by` followed by the published rows of that group; published
    rows of no measured group come last. No row is left out."""
    groups: dict[tuple[Any, ...], list[JsonDict]] = {}
    for row in [*ours, *theirs]:
        groups.setdefault(tuple(row.get(name) for name in by), []).append(row)
    return tuple(row for group in groups.values() for row in group)
