"""What the script reads out of a protocol's folder, and which way its contrasts point."""

from __future__ import annotations

import json
from pathlib import Path

import fastsam_transfer as bench
import pytest

IMAGES = 6


def folder(tmp_path: Path, left: dict[str, float], clean: float = 0.8) -> Path:
    """A protocol's folder: clean mIoU of every victim, and what an attack leaves of it."""
    rows = []
    for victim, value in left.items():
        named = {"attack": "aa", "victim": f"some/{victim}", "prompt": "all", "cell": victim}
        rows.append(named | {"clean": clean, "miou": value})
        prompt = {"kind": "point", "iou_clean_gt": clean, "iou_adv_gt": value}
        records = [{"sample": f"s{n}", "status": "ok", "prompts": [prompt]} for n in range(IMAGES)]
        path = tmp_path / "records" / victim / "samples.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    rows.append({"attack": "aa", "victim": "FastSAM", "prompt": "all", "miou": 0.3264})  # published: it has no cell
    (tmp_path / "study.json").write_text(json.dumps({"tables": [{"rows": rows}]}))
    return tmp_path


def test_above_zero_is_what_was_published(tmp_path: Path) -> None:
    found = bench.compare(folder(tmp_path, {"lab-b": 0.6, "lab-l": 0.7, "fastsam-n": 0.2}), "fastsam-n")
    assert [row["victim"] for row in found["rows"]] == ["lab-b", "lab-l", "fastsam-n"]
    values = {c["name"]: c["value"] for c in found["contrasts"]}
    assert values["mIoU left, lab-l minus fastsam-n, aa"] == pytest.approx(0.5)
    assert values["share of clean mIoU lost, fastsam-n minus lab-b, aa"] == pytest.approx((0.6 - 0.2) / 0.8)
    assert len(values) == 4 and {c["verdict"] for c in found["contrasts"]} == {"reproduced"}
    assert {c["images"] for c in found["contrasts"]} == {IMAGES}


def test_who_finds_nothing_has_nothing_to_lose(tmp_path: Path) -> None:
    found = bench.compare(folder(tmp_path, {"lab-b": 0.04, "fastsam-n": 0.0}, clean=0.05), "fastsam-n")
    assert not found["contrasts"] and "clean mIoU of 0.050" in found["undecided"] and len(found["rows"]) == 2


def test_a_victim_that_was_not_asked_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no victim 'fastsam-x', only: lab-b"):
        bench.compare(folder(tmp_path, {"lab-b": 0.6}), "fastsam-x")
