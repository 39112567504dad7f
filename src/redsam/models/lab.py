"""Lab models: small models in the real architectures, bundled, one folder each in redsam/weights."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


TEXT_TYPE = '"redsam-lab-text"'  # model_type of the one that takes texts only


def lab_names(*, clicks: bool = False) -> list[str]:
    """Names of the bundled models, sorted. clicks: only those that take points and boxes."""
    found = sorted(WEIGHTS.glob("*/config.json"))
    return [p.parent.name for p in found if not (clicks and TEXT_TYPE in p.read_text(encoding="utf-8"))]


def lab_folder(name: str) -> Path | None:
    """The folder of a bundled model, or None when there is none of that name."""
    return WEIGHTS / name if name in lab_names() else None
