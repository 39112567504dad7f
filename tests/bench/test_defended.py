"""Defended models in the bench: cells of their own, images of the undefended model, words in the report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from redsam.bench import RunStore, audit, matrix
from redsam.bench.plan import identity
from redsam.bench.presets import POINT, Trial, linf
from redsam.bench.spec import Cell
from redsam.data import open_data, read_image
from redsam.defenses import DefendedSegmenter
from redsam.models.base import Segmenter
from redsam.registry import create
from redsam.report import render
from redsam.report.reading import read_run
from redsam.report.verdict import verdicts

TRIAL = Trial(attack="pgd", args={"steps": 1}, threats=linf(8))


@pytest.fixture(scope="module")
def defended(model: Segmenter) -> DefendedSegmenter:
    return DefendedSegmenter(model, "jpeg:quality=40|median")


def test_a_cell_names_the_model_and_what_stands_before_it(model: Segmenter, defended: DefendedSegmenter) -> None:
    plain, behind = identity(model), identity(defended)
    assert plain["defense"] is None and plain["model"] == behind["model"] == {
        "name": "tiny-sam", "family": "sam", "fingerprint": model.fingerprint()
    }  # fmt: skip
    assert behind["defense"] == {
        "label": "jpeg:quality=40|median", "seed": 0, "eot": 1,
        "purifiers": [{"name": "jpeg", "args": {"quality": 40}}, {"name": "median", "args": {"size": 3}}],
    }  # fmt: skip
    rest: dict[str, Any] = {"probe": {"kind": "none"}, "threat": None, "data": {}, "protocol": {"name": "point"}}
    one, two = Cell(**plain, **rest), Cell(**behind, **rest)
    assert one.id != two.id and one.id == replace(two, defense=None).id
    assert (one.who, two.who) == ("tiny-sam", "tiny-sam+jpeg:quality=40+median")
    assert Cell.from_spec(json.loads(json.dumps(two.spec()))).id == two.id


def test_static_images_and_adaptive_ones(
    tmp_path: Path, kit: Any, model: Segmenter, defended: DefendedSegmenter, folder: Path
) -> None:
    data = open_data(folder).limit(2)
    options: dict[str, Any] = {"trials": [TRIAL], "attacker_protocols": [POINT], "out": tmp_path}
    static = matrix([model], [model, defended], data, **options)
    fields = {e.victim: e for e in static.entries if e.trial == "pgd"}
    shown = fields[defended.name].cell
    assert shown.replay and shown.source == "tiny-sam" and shown.probe["of"] == fields["tiny-sam"].cell.id
    assert shown.threat is not None and shown.threat["knowledge"] == "transfer"
    records = kit.records(tmp_path)
    for name in ("photo0", "photo2"):
        told, scene = records[shown.id, name], data.subset([name])[0]
        image = read_image(tmp_path / told["image"])
        sample = create("protocol", "point")(scene, seed=0)
        by_hand = model.predict(defended.purified(image[None]), [sample.prompts])[0]
        again = defended.predict(image[None], [sample.prompts])[0]
        assert torch.equal(by_hand.masks, again.masks)
        assert [p["pred_iou_adv"] for p in told["prompts"]] == by_hand.iou.tolist()

    # So far nobody attacked through the defence, and the report says so.
    notes = {v.model: v.notes for v in verdicts(read_run(tmp_path).rows)}
    assert any("no evidence of robustness" in note for note in notes[defended.name])
    assert not any("no evidence" in note for note in notes["tiny-sam"])
    page = render(tmp_path).read_text()
    assert "adaptive number is missing" in page and defended.label in page and "purifiers" not in page

    adaptive = matrix([defended], [defended], data, **options)
    (cell,) = [e.cell for e in adaptive.entries if e.trial == "pgd"]
    assert not cell.replay and cell.id not in {e.cell.id for e in static.entries}
    rows = {r["cell"]: r for r in adaptive.summary.cells}
    assert rows[cell.id]["model"] == defended.name and rows[cell.id]["defense"] == defended.label
    assert rows[cell.id]["source"] is None and rows[fields["tiny-sam"].cell.id]["defense"] is None
    notes = {v.model: v.notes for v in verdicts(read_run(tmp_path).rows)}
    assert not any("no evidence" in note for note in notes[defended.name])

    # Images made through a defence, shown to the model without: the source is named with its defence.
    back = matrix([defended], [model], data, **options)
    (cell,) = [e.cell for e in back.entries if e.trial == "pgd"]
    assert cell.source == defended.name and cell.who == "tiny-sam"


def test_an_audit_goes_on(tmp_path: Path, kit: Any, folder: Path, model: Segmenter) -> None:
    """A random defence answers the same in another process of the same run."""
    noisy = [DefendedSegmenter(model, "noise:sigma=0.1", eot=2) for _ in range(2)]
    for one, out in zip(noisy, ("a", "b"), strict=True):
        audit(one, open_data(folder), preset=kit.one, limit=2, out=tmp_path / out)
    assert kit.same(tmp_path / "a") == kit.same(tmp_path / "b")
    before = {c.cell.id for c in RunStore(tmp_path / "a").cells()}
    audit(noisy[1], open_data(folder), preset=kit.one, limit=2, out=tmp_path / "a")
    assert {c.cell.id for c in RunStore(tmp_path / "a").cells()} == before
