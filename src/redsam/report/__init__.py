"""The report room: `render` turns a run's records into report.html and junit.xml; `attack_figure` draws one attack.

It reads OUT/summary.json and OUT/records alone: no model, no data set, no network.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from redsam.errors import InputError
from redsam.report.figure import attack_figure
from redsam.report.junit import junit
from redsam.report.page import page
from redsam.report.reading import read_run

__all__ = ["attack_figure", "render"]


def render(out: Path | str, *, gates: Mapping[str, str] | None = None) -> Path:
    """Write OUT/report.html and OUT/junit.xml from the records there; returns the path of the page.

    gates: numbers every row must keep for junit.xml to be green, {"miou_adv": ">= 0.3"}. Raises InputError when OUT
    holds no readable summary or cannot be written.
    """
    out = Path(out)
    run = read_run(out)
    files = {out / "junit.xml": junit(run, gates), out / "report.html": page(run)}
    for path, text in files.items():
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"{path} cannot be written: {error.strerror}.", hint="Free space, or copy the run."
            ) from error
    return out / "report.html"
