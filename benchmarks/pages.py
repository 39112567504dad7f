"""Results in pages that people wrote: what stands between two marker comments is printed, the rest stays."""

from __future__ import annotations

from pathlib import Path


def markers(name: str) -> tuple[str, str]:
    """The two comments around a result."""
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def fill(page: Path, name: str, text: str) -> None:
    """Put text between the markers of that name. A page without them is an error before anything is written."""
    begin, end = markers(name)
    before, begun, rest = page.read_text(encoding="utf-8").partition(begin)
    _, ended, after = rest.partition(end)
    if not begun or not ended:
        raise SystemExit(f"{page} lacks the lines {begin} and {end}: put them where the result belongs.")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
