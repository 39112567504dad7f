"""Boards of real runs of random models: what is written, what is refused, what needs the summaries alone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from redsam import bench, leaderboard
from redsam.bench.presets import BOX, POINT, Preset, Trial, linf
from redsam.cli import main
from redsam.data import open_data
from redsam.defenses import load
from redsam.errors import InputError
from redsam.models import tiny

SMALL = Preset(
    name="small", summary="for tests", protocols=(POINT, BOX), trials=(Trial(attack="fgsm", threats=linf(8)),)
)  # fmt: skip


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 255, size=(40, 56, 3), dtype=np.uint8)).save(root / f"p{i}.png")
        ids = np.zeros((40, 56), dtype=np.uint8)
        ids[5:25, 5 : 25 + i] = 1
        Image.fromarray(ids).save(root / f"p{i}_mask.png")
    return root


@pytest.fixture(scope="module")
def runs(photographs: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bare`, `jpeg`: one protocol. `weaker`: another budget. `fewer`: one image less. `sam2`: another model."""
    out = tmp_path_factory.mktemp("runs")
    data = open_data(str(photographs))
    bare = load(str(tiny_folder))
    bench.audit(bare, data, preset=SMALL, out=out / "bare")
    bench.audit(load(str(tiny_folder), defenses=("jpeg:quality=50",)), data, preset=SMALL, out=out / "jpeg")
    bench.audit(tiny("sam2"), data, preset=SMALL, out=out / "sam2")
    other = replace(SMALL, trials=(Trial(attack="fgsm", threats=linf(4)),))
    bench.audit(bare, data, preset=other, out=out / "weaker")
    bench.audit(bare, data, preset=SMALL, limit=2, out=out / "fewer")
    return out


def only_summaries(runs: Path, to: Path, *names: str) -> list[Path]:
    """Copies of the runs that hold summary.json and nothing else."""
    for name in names:
        (to / name).mkdir()
        shutil.copy(runs / name / "summary.json", to / name)
    return [to / name for name in names]


def test_one_page_and_one_file_an_entry_from_the_summaries_alone(runs: Path, tmp_path: Path) -> None:
    page = leaderboard.leaderboard(only_summaries(runs, tmp_path, "bare", "jpeg", "sam2"), tmp_path / "board")
    entries = [json.loads(p.read_text()) for p in sorted((tmp_path / "board" / "entries").iterdir())]
    assert len(entries) == 3
    assert len({e["protocol"]["version"] for e in entries}) == 1
    measured = {
        (row["model"], row["prompt_kind"]): row
        for name in ("bare", "jpeg", "sam2")
        for row in json.loads((runs / name / "summary.json").read_text())["cells"]
        if row["attack"] == "fgsm" and row["reference"] == "ground truth"
    }
    for entry in entries:
        for score in entry["scores"]:
            row = measured[(entry["name"], score["prompt"])]
            assert score["robust"] == {"value": row["miou_adv"], "lo": row["miou_adv_lo"], "hi": row["miou_adv_hi"]}
            rivals = [r for (_, kind), r in measured.items() if kind == score["prompt"]]
            surely_above = sum(r["miou_adv_lo"] > row["miou_adv_hi"] for r in rivals)
            not_below = sum(not r["miou_adv_hi"] < row["miou_adv_lo"] for r in rivals)
            assert score["rank"] == [1 + surely_above, not_below]
    text = page.read_text(encoding="utf-8")
    assert all(entry["name"] in text for entry in entries)


def test_the_page_needs_nothing_but_itself(runs: Path, tmp_path: Path) -> None:
    text = leaderboard.leaderboard([runs / "bare", runs / "sam2"], tmp_path).read_text(encoding="utf-8")
    fetched: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            fetched.extend(v or "" for k, v in attrs if k in ("src", "href") and not (v or "").startswith("data:"))

    Reader().feed(text)
    assert fetched == []
    assert not re.search(r"url\(|@import", text)
    assert "data-sortable" in text and "tied with" in text


@pytest.mark.parametrize(("other", "told"), [("weaker", "budgets"), ("fewer", "photographs")])
def test_another_protocol_is_refused_and_named(runs: Path, tmp_path: Path, other: str, told: str) -> None:
    with pytest.raises(InputError) as refused:
        leaderboard.leaderboard([runs / "bare", runs / other], tmp_path / "board")
    assert f"differ in {told} (" in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "board").exists()


def test_a_renamed_folder_of_the_same_photographs_is_the_same_protocol(
    runs: Path, photographs: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(photographs, tmp_path / "elsewhere")
    bench.audit(tiny("sam2"), open_data(str(moved)), preset=SMALL, out=tmp_path / "run")
    leaderboard.leaderboard([runs / "bare", tmp_path / "run"], tmp_path / "board")
    assert len(list((tmp_path / "board" / "entries").iterdir())) == 2


def edited(runs: Path, to: Path, change: Callable[[dict[str, object]], None]) -> Path:
    summary = json.loads((runs / "jpeg" / "summary.json").read_text())
    change(summary)
    to.mkdir()
    (to / "summary.json").write_text(json.dumps(summary))
    return to


def test_an_entry_with_a_failed_image_is_shown_and_not_ranked(runs: Path, tmp_path: Path) -> None:
    def fail(summary: dict[str, object]) -> None:
        for row in summary["cells"]:  # type: ignore[attr-defined]
            row["n_failed"] = 1

    leaderboard.leaderboard([runs / "bare", edited(runs, tmp_path / "failed", fail)], tmp_path / "board")
    by_name = {p.name: json.loads(p.read_text()) for p in (tmp_path / "board" / "entries").iterdir()}
    ranks = {name: [s["rank"] for s in e["scores"]] for name, e in by_name.items()}
    assert sorted(ranks.values(), key=str) == [[None, None], [[1, 1], [1, 1]]]
    assert "Not ranked: 1 images failed" in (tmp_path / "board" / "index.html").read_text()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: s.update(unfinished=["abc"]), "is not finished"),
        (lambda s: [r.pop("question") for r in s["cells"]], "redsam report"),
        (lambda s: [r.update(reference="clean prediction") for r in s["cells"]], "clean prediction"),
        (lambda s: s.update(cells=[]), "no row"),
    ],
)
def test_what_cannot_be_ranked_is_refused_in_one_line(
    runs: Path, tmp_path: Path, change: Callable[[dict[str, object]], None], told: str
) -> None:
    with pytest.raises(InputError) as refused:
        leaderboard.leaderboard([edited(runs, tmp_path / "run", change)], tmp_path / "board")
    assert told in str(refused.value)


def test_two_entries_of_one_name_are_told_apart(runs: Path, tmp_path: Path) -> None:
    again = edited(runs, tmp_path / "again", lambda s: None)
    leaderboard.leaderboard([runs / "jpeg", again], tmp_path / "board")
    names = {json.loads(p.read_text())["name"] for p in (tmp_path / "board" / "entries").iterdir()}
    assert {name.rsplit(" ", 1)[1] for name in names} == {"(jpeg)", "(again)"}


def test_names_from_outside_are_escaped(runs: Path, tmp_path: Path) -> None:
    def rename(summary: dict[str, object]) -> None:
        for row in summary["cells"]:  # type: ignore[attr-defined]
            row["model"] = "<script>alert(1)</script>"

    page = leaderboard.leaderboard([edited(runs, tmp_path / "run", rename)], tmp_path / "board")
    assert "<script>alert" not in page.read_text()


def test_the_command(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leaderboard", str(runs / "bare"), str(runs / "sam2" / "summary.json"), "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "index.html")
    assert main(["leaderboard", str(runs / "bare"), str(runs / "weaker"), "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
