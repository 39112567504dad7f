"""The folder that measuring, detecting and purifying fill: one JSON file each, and a few pictures for the report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from redsam.backdoor.measure import Measured, purified
from redsam.backdoor.plant import asked, protocols_of
from redsam.backdoor.poison import Poison
from redsam.bench.files import write_json
from redsam.data.base import Dataset
from redsam.data.images import write_png
from redsam.defenses.base import Purifier
from redsam.types import to_uint8

SCHEMA = 1
SHOWN = 3  # pictures of a page


def write(out: Path, name: str, told: Mapping[str, Any]) -> Path:
    """OUT/name.json, whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.json"
    write_json(path, {"schema": SCHEMA, **told})
    return path


def telling(measured: Measured, count: int = SHOWN) -> list[str]:
    """Ids of the pictures that tell most: the attack reached its mask, and the clean answer was good."""
    good = [r for r in measured.rows if r["status"] == "ok"]
    best = sorted(good, key=lambda r: (-bool(r["asr"][0]), -r["iou_clean"][0], r["sample"]))
    return [r["sample"] for r in best[:count]]


def pictures(
    out: Path, data: Dataset, poison: Poison, ids: Sequence[str], *, purifiers: Sequence[Purifier] = (), seed: int = 0
) -> list[dict[str, str]]:
    """Write each picture clean and with the trigger, through the purifiers when there are any; paths below `out`."""
    told = []
    label = slug("|".join(p.label for p in purifiers)) if purifiers else ""
    folder = out / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for place, name in enumerate(ids):
        sample = asked([p(data.subset([name])[0], seed=seed) for p in protocols_of("adapter")])
        bad = poison.apply(sample).image
        entry = {"sample": name}
        for kind, image in (("clean", sample.image), ("triggered", bad)):
            shown = purified(image, purifiers, name, seed)[0]
            entry[kind] = _png(folder / f"{place}-{kind}{label and '-'}{label}.png", shown)
        told.append(entry)
    return told


def _png(path: Path, image: Tensor) -> str:
    write_png(path, to_uint8(image))
    return f"pictures/{path.name}"


def slug(text: str) -> str:
    """A purifier's label as part of a file name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-")[:60]
