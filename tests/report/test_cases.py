"""Where a corruption moves pixels, prompt and outline are drawn where they went; elsewhere once, over both pictures."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from redsam.bench import Change, Preset, audit
from redsam.data import open_data
from redsam.models import tiny
from redsam.report import render
from redsam.report.cases import Case, pick
from redsam.report.pictures import decode_rle
from redsam.report.reading import read_run
from redsam.report.verdict import verdicts
from tests.backdoor.conftest import draw_world


def cases(root: Path, corruption: str) -> list[Case]:
    """Of a small audit under one corruption, box prompts."""
    preset = Preset(
        name="one", summary="", protocols=(("box", {}),), changes=(Change(corruption=corruption, severities=(5,)),)
    )
    audit(tiny("sam"), open_data(draw_world(root / "photos", 3, seed=3)), out=root / "out", preset=preset)
    run = read_run(root / "out")
    return pick(run, [row for v in verdicts(run.rows) for row in v.headline])


Extent = NDArray[np.float64]


def extent(there: NDArray[np.bool_]) -> Extent:
    """Left, top, right, bottom as shares of the picture."""
    rows, columns = np.nonzero(there)
    height, width = there.shape
    ends = (columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height)
    return np.array(ends)


def outlined(uri: str | None) -> Extent:
    """Of the white line."""
    assert uri is not None
    with Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) as image:
        seen = np.asarray(image.convert("RGBA"))
    return extent((seen[..., 0] > 200) & (seen[..., 3] == 255))


def filled(code: Any) -> Extent:
    """Of a record's mask."""
    return extent(decode_rle(code))


def test_where_pixels_moved_there_are_two_overlays(tmp_path: Path) -> None:
    found = cases(tmp_path, "elastic")
    assert found
    for case in found:
        prompt = case.candidate.prompt
        assert case.moved is not None and case.asked.box != case.moved.box
        assert case.moved.box == tuple(prompt["geometry"]["box"])
        assert case.asked.box == tuple(prompt["geometry_given"]["box"])
        own, other = filled(prompt["rle_gt"]), filled(prompt["rle_gt_moved"])
        assert np.abs(own - other).max() > 0.015  # a pixel of 64
        for overlay, near, far in ((case.asked, own, other), (case.moved, other, own)):
            line = outlined(overlay.outline)
            assert np.abs(line - near).max() < 0.015 and np.abs(line - near).sum() < np.abs(line - far).sum()
    html = render(tmp_path / "out").read_text(encoding="utf-8")
    assert html.count('<div class="before">') == len(found) and html.count('<svg class="prompt"') >= 2 * len(found)


@pytest.mark.parametrize("corruption", ["gaussian-noise"])
def test_where_nothing_moved_there_is_one(tmp_path: Path, corruption: str) -> None:
    found = cases(tmp_path, corruption)
    assert found and all(case.moved is None and case.asked.outline and case.asked.box for case in found)
    assert '<div class="before">' not in render(tmp_path / "out").read_text(encoding="utf-8")
