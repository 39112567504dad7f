"""Corruptions on the page: which photographs, which tiles, which numbers; nothing where nothing was corrupted."""

from __future__ import annotations

import json
import re
from pathlib import Path

import fake
import pytest

from redsam.report import render
from redsam.report.conditions import ROLES, Grid, Tile, conditions
from redsam.report.reading import read_run
from redsam.report.verdict import verdicts

WEATHER = {"rain": (1, 3, 5), "fog": (1, 3), "night+drops": (3,)}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake.make_run(tmp_path_factory.mktemp("weather") / "run", attacks=(), weather=WEATHER)


def tiles_of(grid: Grid) -> list[Tile]:
    return [t for _, row in grid.graded for t in row if t] + list(grid.single)


def test_three_photographs_in_order_of_loss_with_every_condition(out: Path) -> None:
    run = read_run(out)
    found = conditions(run, verdicts(run.rows))
    assert found is not None and [g.role for g in found.grids] == list(ROLES)
    assert len({g.sample for g in found.grids}) == 3
    for grid in found.grids:
        assert grid.severities == (1, 3, 5)
        graded = {name: [t and t.severity for t in tiles] for name, tiles in grid.graded}
        assert graded == {"fog": [1, 3, None], "rain": [1, 3, 5]}
        assert [(t.name, t.severity) for t in grid.single] == [("night+drops", 3)]

    losses = [sum((g.clean.iou or 0) - (t.iou or 0) for t in tiles_of(g)) for g in found.grids]
    assert losses == sorted(losses, reverse=True)


def test_tiles_say_what_the_records_say(out: Path) -> None:
    run = read_run(out)
    found = conditions(run, verdicts(run.rows))
    assert found is not None
    grid = found.grids[0]
    known = {}
    for folder in (out / "records").iterdir():
        spec = json.loads((folder / "spec.json").read_text())
        if spec["probe"]["kind"] == "corruption" and spec["protocol"]["name"] == grid.prompt:
            for line in (folder / "samples.jsonl").read_text().splitlines():
                record = json.loads(line)
                if record["sample"] == grid.sample:
                    key = spec["probe"]["name"], spec["probe"]["args"]["severity"]
                    known[key] = {p["iou_adv_gt"] for p in record["prompts"]}
    for tile in tiles_of(grid):
        assert tile.iou in known[tile.name, tile.severity]
        assert tile.photo.startswith("data:image/webp") and tile.mask


def test_the_page_shows_them(out: Path) -> None:
    html = render(out).read_text()
    assert "What each condition leaves" in html
    assert html.count('<figure class="weather"') == 3
    assert html.count('class="shot"') == 3 * (1 + 5 + 1)
    charts = re.findall(r"<h3>([^<]*)</h3><svg", html)
    assert {"rain", "fog", "night+drops"} <= set(charts)


def test_a_prompt_that_left_has_no_number_and_a_lost_picture_costs_a_tile(tmp_path: Path) -> None:
    fake.make_run(tmp_path, fake.scenes(1), attacks=(), weather={"fog": (1, 3), "rain": (3,)})
    for folder in (tmp_path / "records").iterdir():
        probe = json.loads((folder / "spec.json").read_text())["probe"]
        path = folder / "samples.jsonl"
        if probe["name"] == "rain":
            records = [json.loads(line) for line in path.read_text().splitlines()]
            for prompt in records[0]["prompts"]:
                prompt |= {"gone": "the prompt left", "iou_adv_gt": None, "rle_adv": None, "geometry": None}
            path.write_text("".join(json.dumps(r) + "\n" for r in records))
        if probe["name"] == "fog" and probe["args"]["severity"] == 3:
            (folder / "images" / "p0.png").write_bytes(b"no picture")
    run = read_run(tmp_path)
    found = conditions(run, verdicts(run.rows))
    assert found is not None
    (grid,) = found.grids
    assert {t.name: t.note for t in grid.single} == {"fog": "", "rain": "the prompt left"}
    assert "the prompt left" in render(tmp_path).read_text()


def test_no_corruption_no_section(finished: Path) -> None:
    run = read_run(finished)
    assert conditions(run, verdicts(run.rows)) is None
    assert "What each condition leaves" not in render(finished).read_text()
