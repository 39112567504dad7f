"""Whole runs: killed and resumed, another model in a finished matrix, early errors, the rows of the summary."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from redsam.bench import Trial, audit, preset, summarise
from redsam.bench.presets import PRESETS, linf
from redsam.data import open_data
from redsam.errors import InputError, UnknownName
from redsam.models import tiny
from redsam.models.base import Segmenter

RUN = """
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[3])
from conftest import Kit
from redsam.bench import audit
from redsam.data import open_data
from redsam.models import tiny
model = tiny("sam")
print("ready", flush=True)
audit(model, open_data(sys.argv[1]), out=sys.argv[2], preset=Kit().small)
"""


def start(folder: Path, out: Path) -> subprocess.Popen[str]:
    """An audit in a process of its own, past its imports."""
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", RUN, str(folder), str(out), here]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    return child


def lines(out: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in out.glob("records/*/samples.jsonl"))


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_equals_an_uninterrupted_run(
    tmp_path: Path, kit: Any, folder: Path
) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    assert start(folder, whole).wait() == 0
    rng = np.random.default_rng()  # moments differ from run to run, and every one must do
    seen = [0]
    for target in sorted(rng.choice(np.arange(1, 35), size=3, replace=False).tolist()):
        child = start(folder, torn)
        while lines(torn) < target and child.poll() is None:
            time.sleep(0.002)
        time.sleep(float(rng.uniform(0, 0.05)))  # somewhere between two records, or inside one
        child.send_signal(signal.SIGKILL)
        child.wait()
        seen.append(lines(torn))
    assert seen == sorted(seen) and seen[1] > 0, "a record was lost"
    assert seen[-1] < 40, "nothing was left to resume: the test measured nothing"
    assert start(folder, torn).wait() == 0
    assert kit.same(torn) == kit.same(whole)
    assert len(kit.same(whole)) == 8 * 5
    for path in whole.glob("**/*.png"):
        assert path.read_bytes() == (torn / path.relative_to(whole)).read_bytes()
    rows = [without_time(json.loads((out / "summary.json").read_text())["cells"]) for out in (whole, torn)]
    assert rows[0] == rows[1]
    assert not list(torn.glob("**/.*part")), "half a file was left"


def without_time(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in ("seconds", "peak_mb")} for row in rows]


class Watching:
    """A progress that remembers what ran."""

    def __init__(self) -> None:
        self.cells: list[str] = []
        self.images = 0
        self.plan: dict[str, int] = {}

    def start(self, **plan: int) -> None:
        self.plan = plan

    def cell(self, cell: Any, **_: Any) -> None:
        self.cells.append(cell.model["name"])

    def image(self, record: Any) -> None:
        self.images += 1

    def stop(self, message: str) -> None: ...


def test_another_model_in_a_finished_matrix_runs_only_its_own_cells(
    tmp_path: Path, kit: Any, model: Segmenter, folder: Path
) -> None:
    data = open_data(folder)
    audit(model, data, out=tmp_path, preset=kit.one)
    before = {p: p.read_bytes() for p in tmp_path.glob("records/*/*") if p.is_file()}
    watch = Watching()
    other = tiny("sam", seed=1)
    other.name = "other"
    summary = audit([model, other], data, out=tmp_path, preset=kit.one, progress=watch)
    assert watch.cells == ["other", "other"] and watch.images == 10
    assert watch.plan == {"cells": 4, "finished": 2, "images": 5}
    assert all(path.read_bytes() == content for path, content in before.items())
    assert {r["model"] for r in summary.cells} == {model.name, "other"}
    again = Watching()
    audit(other, data, out=tmp_path, preset=kit.one, progress=again)
    assert again.images == 0 and again.cells == []
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert len(plan["cells"]) == 4, "a plan forgets no cell of an earlier one"


def test_another_eps_runs_only_its_own_cells(tmp_path: Path, kit: Any, model: Segmenter, folder: Path) -> None:
    audit(model, open_data(folder), out=tmp_path, preset=kit.one)
    watch = Watching()
    wider = replace(kit.one, trials=(Trial(attack="fgsm", threats=linf(2, 8)),))
    audit(model, open_data(folder), out=tmp_path, preset=wider, progress=watch)
    assert len(watch.cells) == 1


def test_other_pictures_are_other_cells(tmp_path: Path, kit: Any, model: Segmenter) -> None:
    folder = kit.folder(tmp_path / "data", 2)
    audit(model, open_data(folder), out=tmp_path / "out", preset=kit.one)
    (folder / "photo0.png").write_bytes((folder / "photo1.png").read_bytes())
    watch = Watching()
    audit(model, open_data(folder), out=tmp_path / "out", preset=kit.one, progress=watch)
    assert watch.images == 4


def test_rows_name_their_reference_their_n_and_an_interval_around_the_mean(
    tmp_path: Path, kit: Any, model: Segmenter, folder: Path
) -> None:
    summary = audit(model, open_data(folder), out=tmp_path, preset=kit.small)
    # 2 protocols x (1 clean cell against ground truth + 3 attack cells against both)
    assert len(summary.cells) == 2 * (1 + 3 * 2)
    for row in summary.cells:
        assert row["done"] and row["n_images"] == 5 and row["n_prompts"] == 10 and row["n_failed"] == 0
        assert row["prompt_kind"] == row["protocol"] and row["reference"] in ("ground truth", "clean prediction")
        for name in ("miou_clean", "miou_adv", "delta", "asr50", "asr10", "biou_clean", "biou_adv"):
            assert row[f"{name}_lo"] <= row[name] + 1e-12 and row[name] <= row[f"{name}_hi"] + 1e-12, (name, row)
        assert row["delta"] == pytest.approx(row["miou_clean"] - row["miou_adv"])
        if row["reference"] == "clean prediction":
            assert row["miou_clean"] == 1
        if row["attack"] == "none":
            assert row["delta"] == 0 and row["eps"] == 0 and row["threat"] is None
        else:
            assert row["linf_max"] <= row["eps"] + 1e-9 and row["psnr"] > 25 and row["ssim"] < 1
    row = next(r for r in summary.cells if r["attack"] == "pgd" and r["reference"] == "ground truth")
    prompts = [p for (c, _), r in kit.records(tmp_path).items() if c == row["cell"] for p in r["prompts"]]
    assert row["miou_adv"] == pytest.approx(np.mean([p["iou_adv_gt"] for p in prompts]))
    assert row["asr50"] == pytest.approx(np.mean([p["iou_adv_gt"] <= 0.5 for p in prompts]))
    # contrasts: clean (miou, asr50, asr10), and for 3 attacks x 2 references all four measures
    assert len(summary.contrasts) == 3 + 3 * 2 * 4
    one = next(c for c in summary.contrasts if c["attack"] == "pgd" and c["measure"] == "miou_adv")
    rows = [r for r in summary.cells if r["reference"] == one["reference"]]
    sides = [next(r for r in rows if r["cell"] == cell) for cell in one["cells"]]
    assert [s["protocol"] for s in sides] == ["box", "point"] and one["name"] == "box minus point"
    assert one["value"] == pytest.approx(sides[0]["miou_adv"] - sides[1]["miou_adv"])
    assert one["lo"] <= one["value"] <= one["hi"] and one["n_images"] == 5


def test_summary_is_a_pure_function_of_the_records(tmp_path: Path, kit: Any, model: Segmenter, folder: Path) -> None:
    first = audit(model, open_data(folder), out=tmp_path, preset=kit.one).to_json()
    (tmp_path / "summary.json").unlink()
    assert summarise(tmp_path).to_json() == first
    text = (tmp_path / "summary.json").read_text()
    assert json.loads(text) == first and "NaN" not in text and "Infinity" not in text


def test_a_protocol_of_two_prompt_kinds_has_a_row_for_each_and_one_for_all(
    tmp_path: Path, kit: Any, model: Segmenter, folder: Path
) -> None:
    both = replace(kit.one, protocols=(("uad", {"points": 2, "boxes": 1}),))
    summary = audit(model, open_data(folder).limit(2), out=tmp_path, preset=both)
    rows = {r["prompt_kind"]: r for r in summary.cells if r["attack"] == "fgsm" and r["reference"] == "ground truth"}
    assert {k: r["n_prompts"] for k, r in rows.items()} == {"point": 8, "box": 4, "all": 12}
    mean = (8 * rows["point"]["miou_adv"] + 4 * rows["box"]["miou_adv"]) / 12
    assert rows["all"]["miou_adv"] == pytest.approx(mean)


def test_what_cannot_run_is_said_before_anything_runs(tmp_path: Path, kit: Any, model: Segmenter, folder: Path) -> None:
    data, out = open_data(folder), tmp_path / "out"

    def trial(**changes: Any) -> Any:
        return replace(kit.one, trials=(Trial(**({"attack": "fgsm", "threats": linf(8)} | changes)),))

    with pytest.raises(UnknownName, match="pgdd"):
        audit(model, data, out=out, preset=trial(attack="pgdd"))
    with pytest.raises(UnknownName, match="stepz"):
        audit(model, data, out=out, preset=trial(args={"stepz": 1}))
    with pytest.raises(InputError, match="8/255"):
        audit(model, data, out=out, preset=trial(threats=({"norm": "linf", "eps": 8},)))
    with pytest.raises(InputError, match="does not search in l0"):
        audit(model, data, out=out, preset=trial(threats=({"norm": "l0", "eps": 5},)))
    with pytest.raises(InputError, match="target mask"):
        audit(model, data, out=out, preset=trial(args={"objective": "mse"}))
    with pytest.raises(UnknownName, match="standart"):
        audit(model, data, out=out, preset="standart")
    with pytest.raises(InputError, match="no image"):
        audit(model, data[:0], out=out, preset=kit.one)
    with pytest.raises(InputError, match="needs a model"):
        audit([], data, out=out, preset=kit.one)
    assert not list(out.glob("records/*"))


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_makes_a_plan(name: str, model: Segmenter, folder: Path) -> None:
    from redsam.bench.plan import label, make_plan

    plan = make_plan([model], open_data(folder), preset(name))
    assert len({c.id for c in plan.cells}) == len(plan.cells) and len(set(map(label, plan.cells))) > 2
    kinds = {(c.protocol["name"], c.clean) for c in plan.cells}
    asked = ("text",) if name == "text" else ("point", "box")
    assert {(kind, clean) for kind in asked for clean in (True, False)} <= kinds


def test_photographs_without_masks_are_prompted_on_automatic_objects(
    tmp_path: Path, kit: Any, model: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    from redsam.bench import objects

    folder = kit.folder(tmp_path / "data", 2)
    for mask in folder.glob("*_mask.png"):
        mask.unlink()
    calls = []

    def found(segmenter: Segmenter, image: torch.Tensor, **_: Any) -> Any:
        calls.append(image.shape)
        masks = torch.zeros(2, *image.shape[1:], dtype=torch.bool)
        masks[0, 4:20, 4:20], masks[1, 20:40, 20:40] = True, True
        return SimpleNamespace(masks=masks)

    monkeypatch.setattr(objects, "automatic_masks", found)
    summary = audit(model, open_data(folder), out=tmp_path / "out", preset=kit.small)
    assert len(calls) == 2, "automatic masks are made once for each image"
    assert {row["reference"] for row in summary.cells} == {"clean prediction"}, "they are no ground truth"
    assert all(row["n_prompts"] == 4 and row["miou_adv"] is not None for row in summary.cells)
    assert not summary.failures
    assert objects.find_objects(open_data(folder)) == "automatic"
    assert objects.find_objects(open_data(kit.folder(tmp_path / "more", 1))) == "annotated"


def test_limit_is_evenly_spaced_and_0_takes_all(tmp_path: Path, kit: Any, model: Segmenter, folder: Path) -> None:
    clean = replace(kit.one, trials=(), limit=2)
    for limit, names in ((None, ["photo0", "photo2"]), (1, ["photo0"]), (0, [f"photo{i}" for i in range(5)])):
        out = tmp_path / str(limit)
        audit(model, open_data(folder), out=out, preset=clean, limit=limit)
        assert sorted(name for _, name in kit.records(out)) == names


def test_settings_of_automatic_objects_are_part_of_a_cell(
    tmp_path: Path, kit: Any, model: Segmenter, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from redsam.bench import objects

    asked: list[Any] = []

    def found(segmenter: Segmenter, image: torch.Tensor, **settings: Any) -> Any:
        asked.append(settings)
        return SimpleNamespace(masks=torch.ones(1, *image.shape[1:], dtype=torch.bool))

    monkeypatch.setattr(objects, "automatic_masks", found)
    clean, data = replace(kit.one, trials=()), open_data(folder).limit(1)
    low = objects.automatic(grid=8, iou=0.3, stability=0.45)
    cells = {
        audit(model, data, out=tmp_path, preset=clean, objects=name).cells[-1]["cell"] for name in (low, "automatic")
    }
    keys = ("points_per_side", "pred_iou_thresh", "stability_score_thresh")
    assert [tuple(s[k] for k in keys) for s in asked] == [(8, 0.3, 0.45), (16, 0.7, 0.8)] and len(cells) == 2
    assert objects.generator_of("annotated") is None
    for wrong in ("automatic 8", "automatic x 0.3 0.4", "magic", "annotated 8 0.3 0.4"):
        with pytest.raises(InputError, match="no '"):
            audit(model, data, out=tmp_path / "wrong", preset=clean, objects=wrong)
