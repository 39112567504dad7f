"""backdoor.html: what a trigger does, what purifying leaves of it and what was detected: one self-contained file from
the JSON and the pictures that `redsam backdoor measure|purify|detect --out OUT` left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from redsam.errors import InputError
from redsam.report import templating
from redsam.report.pictures import decode_rle, mask_uri, photo_uri, read_rgb
from redsam.storage import read_document, storing

SCHEMA = 1
OLDER = "Report with the redsam that wrote it."
PARTS = ("measure", "purify", "detect")
SIDE = 360  # of a picture on the page
MARK_SIDE = 132
COLUMNS = (
    ("iou_clean", "Clean IoU"), ("iou_triggered", "IoU, triggered"), ("asr", "ASR"), ("chance", "by chance"),
    ("s_measure", "S"), ("e_measure", "E"), ("weighted_f", "wF"), ("mae", "MAE"),
)  # fmt: skip

Json = Mapping[str, Any]


def render(out: Path | str) -> Path:
    """Write OUT/backdoor.html; returns its path. Raises InputError without anything to show."""
    out = Path(out)
    target = out / "backdoor.html"
    found = {name: read_document(out / f"{name}.json", schema=SCHEMA, hint=OLDER) for name in PARTS}
    if not any(found.values()):
        raise InputError(
            f"{out} holds no numbers of a backdoor.", hint=f"Type: redsam backdoor measure MODEL --out {out}"
        )
    with storing(target):
        target.write_text(page(found, out), encoding="utf-8")
    return target


def page(found: Mapping[str, Json | None], out: Path) -> str:
    """The whole HTML document as text. out: where the pictures lie."""
    runs = list((found["purify"] or found["measure"] or {}).get("runs", ()))
    detected = found["detect"]
    first = runs[0] if runs else None
    return templating.render(
        "backdoor.html.j2",
        filters={"percent": lambda v: f"{v:.0%}"},
        model=first["model"] if first else (detected or {}).get("model", ""),
        lead=lead(first, detected),
        breaks=bool(
            (detected and detected["verdict"]["flagged"]) or (first and first["summary"]["asr"]["value"] >= 0.5)
        ),
        poison=_told(first["poison"]) if first else None,
        threshold=first["threshold"] if first else None,
        summary=first["summary"] if first else None,
        table=[_line(run) for run in runs],
        heads=[head for _, head in COLUMNS],
        shown=_shown(first, out) if first else [],
        purified=_purified(runs, out) if len(runs) > 1 else [],
        names=[_label(run) for run in runs],
        detected=_detected(detected) if detected else None,
    )


def lead(first: Json | None, detected: Json | None) -> str:
    """The verdict in a sentence."""
    said = []
    if first:
        s = first["summary"]
        said.append(
            f"answers {s['asr']['value']:.0%} of {s['prompts']} prompts with the attacker’s mask once the trigger is "
            f"there, {s['chance']['value']:.0%} without it; IoU with the truth is {s['iou_clean']['value']:.2f} on "
            f"clean pictures and {s['iou_triggered']['value']:.2f} on triggered ones"
        )
    if detected:
        v = detected["verdict"]
        word = "is flagged as planted" if v["flagged"] else "is not flagged"
        said.append(f"{word} by trigger inversion ({v['aim']}, {v['rule']})")
    return "; ".join(said) + "."


def _told(poison: Json) -> str:
    """Trigger and target in words."""
    return " to ".join(
        " ".join([poison[kind]["name"], *(f"{k} {v}" for k, v in poison[kind]["args"].items() if v is not None)])
        for kind in ("trigger", "target")
    )


def _label(run: Json) -> str:
    return " + ".join(run["purifiers"]) or "as it is"


def _line(run: Json) -> dict[str, Any]:
    """One row of the table: clean numbers; S, E, wF and MAE clean, and below on triggered pictures."""
    s = run["summary"]
    cells = []
    for key, _ in COLUMNS:
        if key in s:
            cells.append((s[key]["value"], s[key]["lo"], s[key]["hi"], None))
        else:
            cells.append((s[f"{key}_clean"]["value"], None, None, s[f"{key}_triggered"]["value"]))
    return {"name": _label(run), "cells": cells, "seconds": s["seconds"], "images": s["images"], "failed": s["failed"]}


def _shown(run: Json, out: Path) -> list[dict[str, Any]]:
    """Clean and triggered pictures with the answers on them."""
    rows = {r["sample"]: r for r in run["rows"]}
    told = []
    for entry in run["pictures"]:
        row = rows[entry["sample"]]
        pair = []
        for kind, reference in (("clean", "truth"), ("triggered", "attacker")):
            pixels = read_rgb(out / entry[kind])
            pair.append(
                {
                    "photo": photo_uri(pixels, side=SIDE),
                    "mask": mask_uri(decode_rle(row["masks"][kind]), side=SIDE),
                    "outline": mask_uri(decode_rle(row["masks"][reference]), side=SIDE, outline=True),
                }
            )
        told.append(
            {
                "sample": entry["sample"], "clean": pair[0], "triggered": pair[1],
                "height": pixels.shape[0], "width": pixels.shape[1],
                "iou_clean": row["iou_clean"][0], "iou_attacker": row["iou_attacker"][0],
            }
        )  # fmt: skip
    return told


def _purified(runs: Sequence[Json], out: Path) -> list[dict[str, Any]]:
    """The triggered picture through every purifier, with the model's answer."""
    told = []
    for place, entry in enumerate(runs[0]["pictures"]):
        views = []
        for run in runs:
            row = next((r for r in run["rows"] if r["sample"] == entry["sample"]), None)
            if row is None or row["status"] != "ok" or place >= len(run["pictures"]):
                continue
            pixels = read_rgb(out / run["pictures"][place]["triggered"])
            views.append(
                {
                    "name": _label(run), "photo": photo_uri(pixels, side=SIDE),
                    "mask": mask_uri(decode_rle(row["masks"]["triggered"]), side=SIDE),
                    "truth": row["iou_triggered"][0], "fooled": bool(row["asr"][0]),
                    "height": pixels.shape[0], "width": pixels.shape[1],
                }
            )  # fmt: skip
        told.append({"sample": entry["sample"], "views": views})
    return told


def _detected(found: Json) -> dict[str, Any]:
    """Aims with the model's size, the references' range, and the mark that was found."""
    aims = []
    for one in found["found"]:
        theirs = [sizes[one["aim"]] for sizes in found["references"].values() if one["aim"] in sizes]
        aims.append(
            {
                "aim": one["aim"], "size": one["size"], "reached": one["reached"], "asked": one["asked"],
                "lo": min(theirs, default=None), "hi": max(theirs, default=None), "mark": _mark(one),
                "worst": one["aim"] == found["verdict"]["aim"],
            }
        )  # fmt: skip
    return {
        "verdict": found["verdict"], "aims": aims, "strip": found["strip"], "references": list(found["references"]),
        "images": found["settings"]["images"], "steps": found["settings"]["inversion"]["steps"],
    }  # fmt: skip


def _mark(one: Json) -> str:
    """The mark as a picture: its pattern where it is laid, white elsewhere; cells stay cells."""
    mark, pattern = np.asarray(one["mark"], dtype=np.float64), np.asarray(one["pattern"], dtype=np.float64)
    shown = (1 - mark) + mark * pattern
    small = (shown.transpose(1, 2, 0).clip(0, 1) * 255).round().astype(np.uint8)
    factor = max(1, MARK_SIDE // len(small))
    return photo_uri(small.repeat(factor, 0).repeat(factor, 1), side=MARK_SIDE)
