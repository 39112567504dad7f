"""Lab models: small models in the real architectures, bundled, one folder each in redsam/weights."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


def lab_names() -> list[str]:
    """Names of the bundled models, sorted."""
    return sorted(p.parent.name for p in WEIGHTS.glob("*/config.json"))


def lab_folder(name: str) -> Path | None:
    """The folder of a bundled model, or None when there is none of that name."""
    return WEIGHTS / name if name in lab_names() else None
