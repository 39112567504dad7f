"""Corruptions asked as attacks are: same records and rows, no budget; references and prompts move with the pixels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from redsam import registry
from redsam.bench import PRESETS, Change, RunStore, audit, summarise
from redsam.bench.plan import label
from redsam.bench.presets import BOX, POINT
from redsam.bench.weathered import OBJECT_LEFT, PROMPT_LEFT
from redsam.corruptions import Corruption
from redsam.corruptions.base import identity
from redsam.data import open_data, read_image
from redsam.errors import InputError, UnknownName
from redsam.metrics import iou, psnr
from redsam.models import tiny
from redsam.models.base import Segmenter
from redsam.report import render
from redsam.report.reading import read_run
from redsam.report.verdict import verdict
from redsam.seeds import stable_seed
from redsam.threat import Threat
from redsam.types import to_uint8


def asking(kit: Any, *changes: Change, **more: Any) -> Any:
    """A preset of corruptions alone, with points."""
    return replace(kit.one, trials=(), changes=changes, **more)


def natural(out: Path) -> list[Any]:
    return [c.cell for c in RunStore(out).cells() if c.cell.natural]


def test_what_is_scored_is_the_file_and_the_file_is_the_corruption(
    tmp_path: Path, kit: Any, model: Segmenter, folder: Path
) -> None:
    data = open_data(folder).limit(2)
    fog = asking(kit, Change(corruption="fog", severities=(1, 5)), protocols=(POINT, BOX))
    summary = audit(model, data, out=tmp_path, preset=fog)
    records, cells = kit.records(tmp_path), natural(tmp_path)
    assert {(c.protocol["name"], c.severity) for c in cells} == {(p, s) for p in ("point", "box") for s in (1, 5)}
    for cell in cells:
        assert cell.threat is None and not cell.clean and cell.eps is None
        assert label(cell) == f"{model.name}, {cell.protocol['name']}: fog severity {cell.severity}"
        for name in ("photo0", "photo2"):
            one, scene = records[cell.id, name], data.subset([name])[0]
            seed = stable_seed(0, name, "corruption")  # of neither model, prompt nor severity
            wanted = registry.create("corruption", "fog", severity=cell.severity).run(scene.image[None], seeds=[seed])
            image = read_image(tmp_path / one["image"])
            assert torch.equal(image, wanted.images[0])
            assert (one["linf"], one["l2"], one["l0"]) == Threat.measure(to_uint8(image), to_uint8(scene.image))[:3]
            assert one["psnr"] == float(psnr(image, scene.image)) and one["steps"] is None
            sample = registry.create("protocol", cell.protocol["name"])(scene, seed=0)
            before, after = (model.predict(i[None], [sample.prompts])[0].masks for i in (scene.image, image))
            for i, prompt in enumerate(one["prompts"]):
                assert prompt["iou_adv_gt"] == float(iou(after[i], sample.masks[i]))
                assert prompt["iou_adv_clean"] == float(iou(after[i], before[i]))
                assert "gone" not in prompt and "geometry_given" not in prompt
    files = sorted(tmp_path.glob("changed/*/*.png"))
    assert len(files) == 2 * 2, "cells of both protocols share an image of a severity"
    assert not list(tmp_path.glob("records/*/images"))
    rows = [r for r in summary.cells if r["probe"] == "corruption"]
    assert len(rows) == 4 * 2 and {r["severity"] for r in rows} == {1, 5}
    for row in rows:
        assert (row["attack"], row["eps"], row["threat"], row["attacker_protocol"]) == ("fog", None, None, None)
        assert row["n_gone"] == 0 and row["miou_adv_lo"] <= row["miou_adv"] <= row["miou_adv_hi"]
        assert row["delta"] == pytest.approx(row["miou_clean"] - row["miou_adv"])
    assert {r["severity"] for r in summary.cells if r["probe"] == "none"} == {None}
    quality = {r["severity"]: r["psnr"] for r in rows}
    assert quality[1] > quality[5]
    pairs = [c for c in summary.contrasts if c["attack"] == "fog"]
    assert {c["severity"] for c in pairs} == {1, 5} and len(pairs) == 2 * 2 * 4
    for c in pairs:
        sides = [next(r for r in rows if r["cell"] == i and r["reference"] == c["reference"]) for i in c["cells"]]
        assert sides[0]["severity"] == sides[1]["severity"] == c["severity"]
    assert summarise(tmp_path).to_json() == summary.to_json()


def test_another_model_sees_the_same_files_and_makes_none(
    tmp_path: Path, kit: Any, model: Segmenter, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, fog = open_data(folder).limit(2), asking(kit, Change(corruption="fog", severities=(3,)))
    audit(model, data, out=tmp_path, preset=fog)
    monkeypatch.setattr(Corruption, "run", None)
    other = tiny("sam", seed=1)
    other.name = "other"
    summary = audit([model, other], data, out=tmp_path, preset=fog)
    assert not summary.failures and {r["model"] for r in summary.cells} == {model.name, "other"}
    images = {r["image"] for r in kit.records(tmp_path, attack="fog").values()}
    assert len(images) == 2


def test_batches_and_interruptions_change_nothing(tmp_path: Path, kit: Any, model: Segmenter, folder: Path) -> None:
    data = open_data(folder)
    mixed = asking(kit, Change(corruption="rain", severities=(3,)), Change(corruption="elastic", severities=(2,)))
    audit(model, data, out=tmp_path / "alone", preset=mixed)
    audit(model, data, out=tmp_path / "batch", preset=mixed, batch=3)
    assert kit.same(tmp_path / "alone") == kit.same(tmp_path / "batch")
    for store in RunStore(tmp_path / "batch").cells():  # as a crash leaves it: two whole records and a piece
        lines = store.samples.read_bytes().splitlines(keepends=True)
        store.samples.write_bytes(b"".join(lines[:2]) + lines[2][:40])
        (store.folder / "DONE").unlink()
    for path in (tmp_path / "batch").glob("changed/*/photo3.png"):
        path.unlink()
    audit(model, data, out=tmp_path / "batch", preset=mixed)
    assert kit.same(tmp_path / "alone") == kit.same(tmp_path / "batch")
    for path in (tmp_path / "alone").glob("changed/**/*.png"):
        assert path.read_bytes() == (tmp_path / "batch" / path.relative_to(tmp_path / "alone")).read_bytes()


# --- where pixels move -----------------------------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True)
class Shove(Corruption):
    """Everything `by` pixels to the right; what comes in on the left is the first column's."""

    by: int = 8

    def displace(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return (identity(images) - torch.tensor([float(self.by), 0.0])).clamp(min=0)


@pytest.fixture
def shove(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers the corruption for one test."""
    entry = registry.Entry(kind="corruption", name="shove", obj=Shove, meta={"geometric": True, "group": "digital"})
    registry.names("corruption")  # discovered first
    monkeypatch.setitem(registry._entries, ("corruption", "shove"), entry)


@pytest.mark.usefixtures("shove")
def test_both_references_and_the_prompt_move_with_the_pixels(
    tmp_path: Path, kit: Any, model: Segmenter, folder: Path
) -> None:
    data = open_data(folder).limit(2)
    by = 8
    moved = asking(kit, Change(corruption="shove", args={"by": by}, severities=(1,)), protocols=(BOX,))
    audit(model, data, out=tmp_path, preset=moved)
    (cell,) = natural(tmp_path)
    for scene in (data[0], data[1]):
        one = kit.records(tmp_path)[cell.id, scene.id]
        sample = registry.create("protocol", "box")(scene, seed=0)
        image = read_image(tmp_path / one["image"])
        assert torch.equal(image[..., by:], scene.image[..., :-by])
        boxes = [tuple(p["geometry"]["box"]) for p in one["prompts"]]
        given = [p.box for p in sample.prompts]
        assert boxes == [(b[0] + by, b[1], min(b[2] + by, 64.0), b[3]) for b in given if b is not None]
        asked = [replace(p, box=b) for p, b in zip(sample.prompts, boxes, strict=True)]
        before = model.predict(scene.image[None], [sample.prompts])[0].masks
        after = model.predict(image[None], [asked])[0].masks
        assert sample.masks is not None
        for i, prompt in enumerate(one["prompts"]):
            assert prompt["geometry_given"] == sample.prompts[i].to_dict()
            for name, mask in (("gt", sample.masks[i]), ("clean", before[i])):
                shown = torch.cat([mask[:, :1].expand(-1, by), mask[:, :-by]], dim=1)
                assert prompt[f"iou_adv_{name}"] == float(iou(after[i], shown)), name
                assert prompt[f"rle_{name}_moved"] != prompt[f"rle_{name}"]
    assert "data:image/" in render(tmp_path).read_text()


@pytest.mark.usefixtures("shove")
@pytest.mark.parametrize(("protocol", "reason"), [(POINT, PROMPT_LEFT), (BOX, PROMPT_LEFT)])
def test_a_prompt_that_left_the_image_says_so_and_is_in_no_mean(
    tmp_path: Path, kit: Any, model: Segmenter, folder: Path, protocol: Any, reason: str
) -> None:
    data = open_data(folder).limit(2)
    far = asking(kit, Change(corruption="shove", args={"by": 36}, severities=(1,)), protocols=(protocol,))
    summary = audit(model, data, out=tmp_path, preset=far)
    (cell,) = natural(tmp_path)  # objects reach from column 5 to 24 (26), and from 30 to 59 of 64
    for name in ("photo0", "photo2"):
        stayed, left = kit.records(tmp_path)[cell.id, name]["prompts"]
        assert left["gone"] == reason and left["geometry"] is None and left["rle_adv"] is None
        assert left["iou_adv_gt"] is None and left["iou_adv_clean"] is None and left["iou_clean_gt"] is not None
        assert "gone" not in stayed and stayed["iou_adv_gt"] is not None
    row = next(r for r in summary.cells if r["probe"] == "corruption" and r["reference"] == "ground truth")
    assert (row["n_prompts"], row["n_gone"], row["n_images"]) == (2, 2, 2)
    away = asking(kit, Change(corruption="shove", args={"by": 62}, severities=(1,)), protocols=(protocol,))
    gone = audit(model, data, out=tmp_path / "away", preset=away)
    assert {f["status"] for f in gone.failures} == {"skipped"} and len(gone.failures) == 2
    assert all("left the image" in f["reason"] for f in gone.failures)
    assert render(tmp_path / "away").exists()


def test_an_object_that_left_is_gone_although_its_text_stays() -> None:
    from types import SimpleNamespace

    from redsam.bench.weathered import moved_with
    from redsam.corruptions import Corrupted
    from redsam.prompts import text

    grid = (identity(torch.zeros(1, 3, 8, 8)) + torch.tensor([4.0, 0.0])).clamp(max=7)
    truth = torch.zeros(2, 8, 8, dtype=torch.bool)
    truth[0, :, :2], truth[1, :, 5] = True, True
    sample: Any = SimpleNamespace(masks=truth, prompts=(text("dog"), text("cup")))
    job: Any = SimpleNamespace(sample=sample, clean=SimpleNamespace(masks=lambda: truth))
    prompts, moved = moved_with(Corrupted(images=torch.zeros(1, 3, 8, 8), grid=grid), 0, job)
    assert moved.gone == {0: OBJECT_LEFT} and moved.kept == (1,) and [p.text for p in prompts] == ["cup"]
    assert moved.truth is not None and moved.truth[0, :, 1].all() and int(moved.truth.sum()) == 8


# --- what cannot run, and what is said -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (Change(corruption="fogg"), UnknownName, "fogg"),
        (Change(corruption="fog", severities=(0,)), InputError, "Severity 0"),
        (Change(corruption="fog", severities=(9,)), InputError, "Severity 9"),
        (Change(corruption="fog", severities=()), InputError, "without a severity"),
        (Change(corruption="fog", args={"severity": 2}), InputError, "among the options"),
        (Change(corruption="fog", args={"thickness": 2}), UnknownName, "thickness"),
        (Change(corruption="generator"), InputError, "needs weights or network"),
        (Change(corruption="generator", args={"network": abs}), InputError, "JSON"),
    ],
)
def test_early_refusals(
    tmp_path: Path, kit: Any, model: Segmenter, folder: Path, change: Change, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        audit(model, open_data(folder), out=tmp_path, preset=asking(kit, change))
    assert not list(tmp_path.glob("records/*"))


def test_a_reference_photograph_is_part_of_the_question(
    tmp_path: Path, kit: Any, model: Segmenter, folder: Path
) -> None:
    data, style = open_data(folder).limit(1), str(folder / "photo3.png")
    change = Change(corruption="reinhard", args={"reference": style}, severities=(5,))
    audit(model, data, out=tmp_path, preset=asking(kit, change))
    (cell,) = natural(tmp_path)
    assert cell.probe["args"] == {"severity": 5, "reference": style}
    one = kit.records(tmp_path)[cell.id, "photo0"]
    assert one["status"] == "ok" and one["psnr"] < 40


def test_the_report_speaks_of_the_corruption_at_its_usual_severity(
    tmp_path: Path, kit: Any, model: Segmenter, folder: Path
) -> None:
    data = open_data(folder)
    audit(model, data, out=tmp_path, preset=asking(kit, Change(corruption="fog"), Change(corruption="contrast")))
    run = read_run(tmp_path)
    found = verdict(run.rows, model.name)
    assert found.kind != "empty" and {r.severity for r in found.headline} == {3}
    worst = min(r.adv.value for r in run.rows if r.severity == 3 and r.reference == "ground truth")
    assert found.headline[0].adv.value == worst and found.headline[0].budget == "severity 3"
    page = render(tmp_path).read_text()
    assert "severity 5" in page and "at severity 3 its mIoU" in page and "data:image/" in page
    audit(model, data, out=tmp_path, preset=kit.one)
    both = verdict(read_run(tmp_path).rows, model.name)
    assert both.headline[0].severity is None, "where something was attacked, the attack speaks"


def test_the_weather_preset_asks_the_published_conditions() -> None:
    asked = {c.corruption: c.severities for c in PRESETS["weather"].changes}
    paper = {"overcast+drops", "night", "night+drops", "snow", "snow+drops", "wet", "wet+drops"}
    assert paper <= set(asked) and {"rain", "fog", "haze"} <= set(asked)
    assert all(3 in s for s in asked.values()) and not PRESETS["weather"].trials
    json.dumps([dict(c.args) for c in PRESETS["weather"].changes])
