"""Findings: what a study found, as study.json and study.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redsam.bench.files import write_bytes, write_json
from redsam.bench.spec import JsonDict
from redsam.studies.tables import PUBLISHED, Table

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Findings:
    """study: name and fields, enough to make it again. meta: paper, year, url. notes: what a careful reader asks next.
    failures: images that gave no number, over all cells in the folder."""

    study: Mapping[str, Any]
    meta: Mapping[str, Any]
    model: str
    victims: tuple[str, ...]
    data: str
    images: int
    tables: tuple[Table, ...]
    notes: tuple[str, ...] = ()
    failures: int = 0
    out: Path = field(default=Path())

    def to_json(self) -> JsonDict:
        """study.json."""
        return {
            "schema": SCHEMA,
            "study": dict(self.study),
            **{key: self.meta[key] for key in ("paper", "year", "url") if key in self.meta},
            "model": self.model,
            "victims": list(self.victims),
            "data": {"name": self.data, "images": self.images},
            "tables": [t.to_json() for t in self.tables],
            "notes": list(self.notes),
            "failures": self.failures,
        }

    def markdown(self) -> str:
        """study.md."""
        paper = f"Protocol of {self.meta['paper']}, {self.meta['year']}: {self.meta['url']}"
        victims = f"; victims {', '.join(self.victims)}" if self.victims else ""
        head = [f"# {self.study['name']}", "", paper, ""]
        head.append(f"Measured: model {self.model}{victims}; {self.images} of {self.data}'s images.")
        if self.failures:
            head.append(f"{self.failures} images of a cell gave no number; see summary.json.")
        head.append(
            f"Rows marked '{PUBLISHED}' are the paper's (or its benchmark's) and compare in order and size, not digit "
            "by digit. Brackets are 95 % intervals over images."
        )
        parts = ["\n".join(head), *(t.markdown() for t in self.tables)]
        if self.notes:
            parts.append("\n".join(f"- {note}" for note in self.notes))
        return "\n\n".join(parts) + "\n"

    def write(self) -> None:
        """OUT/study.json and OUT/study.md."""
        write_json(self.out / "study.json", self.to_json())
        write_bytes(self.out / "study.md", self.markdown().encode())
