"""Which images the overlap rule can change, what is compared, and going on after a stop."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import rga_overlap as bench
import torch

from redsam.attacks import rga
from redsam.data import open_data
from redsam.models import tiny
from redsam.models.automatic import MaskSet, boxes_of


def regions(*corners: tuple[int, int, int]) -> MaskSet:
    """Squares (top, left, side) in 100 x 200 pixels."""
    masks = torch.zeros(len(corners), 100, 200, dtype=torch.bool)
    for mask, (top, left, side) in zip(masks, corners, strict=True):
        mask[top : top + side, left : left + side] = True
    scores = torch.linspace(0.9, 0.5, len(corners))
    return MaskSet(masks=masks, boxes=boxes_of(masks), iou=scores, stability=scores.flip(0), points=torch.zeros(0, 2))


def test_only_dilated_small_masks_overlap() -> None:
    # Small is up to 10 x 10 here, and each grows by 20 pixels to every side.
    assert bench.overlaps(regions((40, 20, 10), (40, 71, 10))) == 0  # 21 and 20 pixels apart from the middle
    assert bench.overlaps(regions((40, 20, 10), (40, 69, 10))) == 50
    assert bench.overlaps(regions((40, 20, 10), (40, 69, 11))) == 0  # a large mask is cut into cells
    assert bench.overlaps(regions((40, 20, 10), (40, 69, 11)), 0.2) == 50
    assert bench.overlaps(regions()) == 0


def test_differences_are_paired_and_signed() -> None:
    def line(n: int, *ious: float) -> dict[str, Any]:
        return {"sample": f"s{n}", "kinds": ["point"], "clean": [0.9]} | dict(
            zip(bench.RULES, ([v] for v in ious), strict=True)
        )

    looked = [line(n, 0.5 + n / 100, 0.4 + n / 100, 0.5 + n / 100) for n in range(6)] + [{"sample": "no overlap"}]
    told = bench.compare(looked)
    assert (told["looked_at"], told["images"]) == (7, 6) and told["miou"]["clean"] == pytest.approx(0.9)
    found = {d["of"]: d for d in told["differences"]}
    first = found["first minus small-first"]
    assert first["value"] == pytest.approx(0.1) and first["lo"] == pytest.approx(0.1)
    assert first["stronger"] == "small-first" and found["first minus confident-first"]["stronger"] == "undecided"
    assert found["small-first minus confident-first"]["stronger"] == "small-first"


def test_it_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def found(segmenter: Any, image: torch.Tensor, **_: Any) -> MaskSet:
        made.append(1)
        height, width = image.shape[1:]
        masks = torch.zeros(2, height, width, dtype=torch.bool)
        masks[0, 10:14, 10:14] = masks[1, 12:16, 12:16] = True
        return MaskSet(masks=masks, boxes=boxes_of(masks), iou=torch.ones(2), stability=torch.tensor([0.5, 0.9]),
                       points=torch.zeros(2, 2))  # fmt: skip

    monkeypatch.setattr(bench, "automatic_masks", found)
    monkeypatch.setattr(rga, "automatic_masks", lambda *given, **rest: made.pop() and found(*given, **rest))
    args, path = argparse.Namespace(limit=1, steps=1, grid_rate=0.2), tmp_path / "demo.jsonl"
    data, segmenter = open_data("demo").limit(2), tiny("sam", image_size=64)
    (line,) = bench.lines(segmenter, data, path, args)
    assert line["overlap"] > 0 and all(len(line[name]) == len(line["kinds"]) for name in ("clean", *bench.RULES))
    assert len(list(tmp_path.glob("demo/*/*.png"))) == len(bench.RULES) and len(made) == 1
    path.write_text(path.read_text() + '{"sample": "cut sho')
    args.limit = 2
    again = list(bench.lines(segmenter, data, path, args))
    assert len(made) == 2 and again[0] == json.loads(json.dumps(line)) and len(again) == 2
    assert len(path.read_text().splitlines()) == 2
