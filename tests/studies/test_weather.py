"""weather and texture end to end on a random model: numbers recomputed from the records, halves kept apart."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from redsam.bench import RunStore, objects, read_records
from redsam.data import open_data
from redsam.errors import InputError, UnknownName
from redsam.models.base import Segmenter
from redsam.studies import Table, study
from redsam.studies.real_weather import clear_of, condition, halves
from redsam.studies.tables import MEASURED, PUBLISHED
from redsam.studies.weather import PUBLISHED as PAPER

FEW = ("snow", "night", "night+drops")


@pytest.fixture
def two_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model finds nothing by itself; two squares stand for what a trained one would."""

    def found(segmenter: Segmenter, image: torch.Tensor, **_: Any) -> Any:
        masks = torch.zeros(2, *image.shape[1:], dtype=torch.bool)
        masks[0, 4:30, 4:30], masks[1, 20:50, 20:50] = True, True
        return SimpleNamespace(masks=masks)

    monkeypatch.setattr(objects, "automatic_masks", found)


def cells(out: Path) -> Iterator[tuple[Any, list[dict[str, Any]]]]:
    for store in RunStore(out).cells():
        yield store.cell, read_records(store.samples)


def numbers(out: Path, name: str, protocol: str, key: str, severity: int = 3) -> list[list[float]]:
    """One list of IoU for each image."""
    ((_, records),) = [
        (c, r)
        for c, r in cells(out)
        if c.probe["name"] == name and c.protocol["name"] == protocol and c.severity in (severity, None)
    ]
    return [[p[key] for p in r["prompts"]] for r in sorted(records, key=lambda r: r["sample"])]


def titled(tables: tuple[Table, ...], word: str) -> Table:
    return next(t for t in tables if t.title.startswith(word))


@pytest.mark.usefixtures("two_masks")
def test_the_papers_protocol_and_the_truth(model: Segmenter, tested: Path, tmp_path: Path) -> None:
    made = study("weather", conditions=FEW, max_objects=1)
    found = made.run(model, open_data(tested), out=tmp_path)
    stable = titled(found.tables, "Stability")
    theirs = {r["condition"]: r["miou"] for r in stable.rows if r["origin"] == PUBLISHED}
    assert theirs == PAPER and theirs["snow"] == 0.8707 and theirs["night+drops"] == 0.3896
    ours = {r["condition"]: r for r in stable.rows if r["origin"] == MEASURED}
    assert set(ours) == set(FEW)
    for name, row in ours.items():
        values = numbers(tmp_path, name, "red-teaming", "iou_adv_clean")
        assert row["miou"] == pytest.approx(np.mean([v for image in values for v in image]))
        assert (row["n_images"], row["n_prompts"], row["reference"]) == (2, 4, "clean prediction")
    for cell, records in cells(tmp_path):
        if cell.protocol["name"] == "red-teaming":
            assert (cell.objects, cell.select) == ("automatic 32 0.88 0.95", "area")
            assert cell.protocol["args"]["max_objects"] == 9
            for record in records:  # centres of the squares, the larger one first
                points = [p["geometry"]["points"] for p in record["prompts"]]
                assert points == [[[34.0, 34.0]], [[16.0, 16.0]]]
    place = [(r.get("condition"), r["origin"]) for r in stable.rows]
    assert place.index(("snow", PUBLISHED)) == place.index(("snow", MEASURED)) + 1
    truth = titled(found.tables, "Against ground truth")
    assert {(r["condition"], r["prompt"]) for r in truth.rows} == {
        (c, p) for c in ("clean", *FEW) for p in ("point", "box")
    }
    row = next(r for r in truth.rows if (r["condition"], r["prompt"]) == ("night", "box"))
    before, after = (np.ravel(numbers(tmp_path, n, "box", "iou_adv_gt")) for n in ("none", "night"))
    assert row["loss"] == pytest.approx(before.mean() - after.mean()) and row["reference"] == "ground truth"
    counted = titled(found.tables, "How many")
    for row in counted.rows:
        assert row["pairs"] == 3 == row["holds"] + row["reversed"] + row["undecided"]
    neighbours = [r for r in titled(found.tables, "Neighbours").rows if r["asked"] == "red-teaming"]
    assert [(r["first"], r["second"]) for r in neighbours] == [("snow", "night"), ("night", "night+drops")]
    assert neighbours[0]["published"] == pytest.approx(0.8707 - 0.7030)
    assert neighbours[0]["difference"] == pytest.approx(ours["snow"]["miou"] - ours["night"]["miou"])
    said = {1: "holds", -1: "reversed", 0: "undecided"}
    for row in neighbours:
        lo, hi = row["difference_lo"], row["difference_hi"]
        assert row["verdict"] == said[int(lo > 0) - int(hi < 0)]
    assert (tmp_path / "report.html").is_file() and "| snow | SAM-H |" in (tmp_path / "study.md").read_text()


@pytest.fixture
def acdc(tmp_path: Path) -> Path:
    """Pictures named as those of ACDC are: two clear, three in fog, two at night."""
    root = tmp_path / "acdc_weather"
    root.mkdir()
    rng = np.random.default_rng(0)
    names = ["normal__a", "normal__b", "fog__a", "fog__b", "fog__c", "night__a", "night__b"]
    for name in names:
        small = Image.fromarray(rng.integers(0, 255, size=(6, 8, 3), dtype=np.uint8))
        small.resize((64, 48), Image.Resampling.BICUBIC).save(root / f"{name}.jpg")
        ids = np.zeros((48, 64), dtype=np.uint8)
        ids[5:40, 5:50] = 1
        Image.fromarray(ids).save(root / f"{name}.png")
    return root


@pytest.mark.usefixtures("two_masks")
def test_a_photograph_is_a_style_or_a_test_and_never_both(model: Segmenter, acdc: Path, tmp_path: Path) -> None:
    data = open_data(acdc)
    parts = halves(data)
    assert parts == {"fog": (["fog__a", "fog__c"], ["fog__b"]), "night": (["night__a"], ["night__b"])}
    clear = clear_of(data)
    assert clear is not None and clear.ids == ("normal__a", "normal__b")
    found = study("weather", conditions=("night",), max_objects=1, styles=("reinhard",)).run(
        model, data, out=tmp_path / "out"
    )
    real = titled(found.tables, "Real weather")
    hows = {(r["weather"], r["how"]) for r in real.rows if r["prompt"] == "box"}
    assert hows == {
        ("clear", "real, nothing done"),
        ("fog", "real, other photographs"), ("night", "real, other photographs"),
        ("night", "drawn: night, severity 3"),
        ("fog", "reinhard of real photograph 1"), ("night", "reinhard of real photograph 1"),
    }  # fmt: skip
    styles, tests = set(), set()
    for cell, records in cells(tmp_path / "out"):
        styles |= {Path(cell.probe["args"]["reference"]).stem} if cell.probe["name"] == "reinhard" else set()
        tests |= {r["sample"] for r in records}
        if cell.natural:
            assert {r["sample"] for r in records} == set(clear.ids), "only clear photographs are changed"
    assert styles == {"fog__b", "night__b"} and not styles & tests
    rows = {(r["weather"], r["how"], r["prompt"]): r for r in real.rows}
    clean = rows["clear", "real, nothing done", "box"]
    fog = rows["fog", "real, other photographs", "box"]
    assert clean["loss"] is None and fog["n_images"] == 2
    assert fog["loss"] == pytest.approx(clean["miou"] - fog["miou"]) and fog["loss_lo"] <= fog["loss"] <= fog["loss_hi"]
    assert rows["night", "real, other photographs", "box"]["loss_lo"] is None, "one image has no interval"


def test_conditions_are_read_from_names() -> None:
    assert [condition(n) for n in ("fog__x", "normal__x", "clear__x", "night_x", "dawn__x", "fog")] == [
        "fog", "clear", "clear", None, None, None,
    ]  # fmt: skip


def test_texture_against_colour_at_one_psnr(model: Segmenter, tested: Path, tmp_path: Path) -> None:
    made = study("texture", textures=("gaussian-noise",), colours=("contrast",), levels=(3, 4), max_objects=1)
    found = made.run(model, open_data(tested), out=tmp_path)
    pairs, each = found.tables
    levels = {3: 24.0, 4: 20.0}
    for cell, records in cells(tmp_path):
        if cell.natural:
            for record in records:
                assert abs(record["psnr"] - levels[cell.severity]) < 0.1, "this test's pictures reach both levels"
    assert {(r["texture"], r["colour"], r["dB"], r["prompt"]) for r in pairs.rows} == {
        ("gaussian-noise", "contrast", dB, p) for dB in (24.0, 20.0) for p in ("point", "box")
    }
    lost = {(r["change"], r["dB"], r["prompt"]): r for r in each.rows}
    for row in pairs.rows:
        texture, colour = (lost[row[k], row["dB"], row["prompt"]] for k in ("texture", "colour"))
        assert row["difference"] == pytest.approx(texture["loss"] - colour["loss"])
        assert row["n_images"] == texture["n_images"] == 2 and texture["not reached"] == 0
        assert row["verdict"] in ("texture hurts more", "colour hurts more", "undecided")
    drawing = ET.parse(tmp_path / "texture.svg").getroot()
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg" and "gaussian-noise" in "".join(drawing.itertext())
    assert "(texture.svg)" in (tmp_path / "study.md").read_text()
    assert json.loads((tmp_path / "study.json").read_text())["tables"][0]["figure"] == "texture.svg"


def test_an_image_that_cannot_be_brought_there_is_in_no_mean(model: Segmenter, tested: Path, tmp_path: Path) -> None:
    made = study("texture", textures=("jpeg",), colours=("contrast",), levels=(5,), prompts=("box",), max_objects=1)
    found = made.run(model, open_data(tested), out=tmp_path)
    pairs, each = found.tables
    assert [(r["change"], r["not reached"], r["miou"]) for r in each.rows][0] == ("jpeg", 2, None)
    assert (pairs.rows[0]["difference"], pairs.rows[0]["n_images"], pairs.rows[0]["verdict"]) == (None, 0, "undecided")


def test_what_is_not_there_is_said_first(model: Segmenter, tested: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="sharknado"):
        study("weather", conditions=("sharknado",)).check()
    with pytest.raises(InputError, match="Severity 9"):
        study("weather", conditions=("snow",), severity=9).run(model, open_data(tested), out=tmp_path)
