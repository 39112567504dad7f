"""Replay: images crafted on one model and prompt, scored on another; resumed, nothing twice, failures with a reason."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from redsam import registry
from redsam.attacks.base import Attack
from redsam.attacks.fgsm import FGSM
from redsam.attacks.loop import Trace
from redsam.attacks.task import Task
from redsam.bench import Matrix, RunStore, audit, matrix, summarise
from redsam.bench.presets import BOX, POINT, Trial, linf
from redsam.data import open_data, read_image
from redsam.errors import BudgetViolation, InputError
from redsam.metrics import iou
from redsam.models import tiny
from redsam.models.base import Segmenter
from redsam.report import render
from redsam.report.reading import read_run
from redsam.seeds import stable_seed
from redsam.threat import Threat
from redsam.types import to_uint8

FAST = (Trial(attack="fgsm", threats=linf(8)),)


@pytest.fixture(scope="module")
def other() -> Segmenter:
    """A victim with other weights."""
    made = tiny("sam", seed=1)
    made.name = "other"
    return made


def cross(out: Path, model: Segmenter, victims: list[Segmenter], folder: Path, **changes: Any) -> Matrix:
    """FGSM on point prompts, tested with points and boxes, two images."""
    options: dict[str, Any] = {"trials": FAST, "attacker_protocols": [POINT], "test_protocols": [POINT, BOX]} | changes
    return matrix([model], victims, open_data(folder).limit(2), out=out, **options)


class Watching:
    """A progress that remembers what ran."""

    def __init__(self) -> None:
        self.cells: list[str] = []
        self.images = 0

    def start(self, **_: Any) -> None: ...

    def cell(self, cell: Any, *, label: str, **_: Any) -> None:
        self.cells.append(label)

    def image(self, record: Any) -> None:
        self.images += 1

    def stop(self, message: str) -> None: ...


def test_a_victim_answers_to_the_very_files_of_the_source(
    tmp_path: Path, kit: Any, model: Segmenter, other: Segmenter, folder: Path
) -> None:
    found = cross(tmp_path, model, [other], folder)
    cells = {e.test: e.cell for e in found.entries if e.trial == "fgsm"}
    assert set(cells) == {"point", "box"}
    data, records = open_data(folder), kit.records(tmp_path)
    for test, cell in cells.items():
        assert cell.probe["kind"] == "replay" and cell.threat is not None and cell.threat["knowledge"] == "transfer"
        assert not (tmp_path / "records" / cell.id / "images").exists(), "a replay makes no image"
        for name in ("photo0", "photo2"):
            one, source = records[cell.id, name], records[cell.probe["of"], name]
            path = tmp_path / "records" / cell.probe["of"] / source["image"]
            assert tmp_path / one["image"] == path
            scene = data.subset([name])[0]
            adv = read_image(path)
            spent = Threat.measure(to_uint8(adv), to_uint8(scene.image))
            assert (one["linf"], one["l2"], one["l0"]) == spent[:3] == (source["linf"], source["l2"], source["l0"])
            sample = registry.create("protocol", test)(scene, seed=0)
            before, after = (other.predict(i[None], [sample.prompts])[0].masks for i in (scene.image, adv))
            assert sample.masks is not None
            for i, prompt in enumerate(one["prompts"]):
                assert prompt["kind"] == test
                assert prompt["iou_adv_gt"] == float(iou(after[i], sample.masks[i]))
                assert prompt["iou_adv_clean"] == float(iou(after[i], before[i]))


def test_rows_name_source_and_the_attackers_prompts(
    tmp_path: Path, model: Segmenter, other: Segmenter, folder: Path
) -> None:
    found = cross(tmp_path, model, [model, other], folder)
    rows = [(e, r) for e, r in found.rows(references=["ground truth"]) if e.trial == "fgsm"]
    seen = {(e.victim, e.test): (r["source"], r["attacker_protocol"]) for e, r in rows}
    assert seen == {
        (model.name, "point"): (None, "point"),  # the attack cell itself
        (model.name, "box"): (model.name, "point"),
        ("other", "point"): (model.name, "point"),
        ("other", "box"): (model.name, "point"),
    }
    assert len({r["cell"] for _, r in rows}) == 4 and all(e.source == model.name for e, _ in rows)
    for _, row in rows:
        values = [
            p["iou_adv_gt"]
            for line in (tmp_path / "records" / row["cell"] / "samples.jsonl").read_text().splitlines()
            for p in json.loads(line)["prompts"]
        ]
        assert row["sd_adv"] == pytest.approx(float(np.std(values))) and row["n_prompts"] == 4
    clean = [r for e, r in found.rows() if e.trial == "clean"]
    assert len(clean) == 4 and all((r["source"], r["attacker_protocol"]) == (None, None) for r in clean)
    assert summarise(tmp_path).to_json() == found.summary.to_json()
    labels = {r.label for r in read_run(tmp_path).rows if r.model == "other" and r.attacked}
    assert labels == {f"fgsm from {model.name}", f"fgsm from {model.name}, point"}
    page = render(tmp_path).read_text()
    assert f"fgsm from {model.name}" in page and "data:image/" in page


def test_another_victim_costs_its_own_cells_only(
    tmp_path: Path, model: Segmenter, other: Segmenter, folder: Path
) -> None:
    cross(tmp_path, model, [model], folder)
    before = {p: p.read_bytes() for p in tmp_path.glob("records/*/*") if p.is_file()}
    watch = Watching()
    cross(tmp_path, model, [model, other], folder, progress=watch)
    assert [c.split(",")[0] for c in watch.cells] == ["other"] * 4 and watch.images == 8
    assert all(path.read_bytes() == content for path, content in before.items())
    again = Watching()
    cross(tmp_path, model, [other, model], folder, progress=again)
    assert again.cells == [] and again.images == 0


RUN = """
import sys, torch
torch.set_num_threads(1)
from redsam.bench import matrix
from redsam.bench.presets import BOX, POINT, Trial, linf
from redsam.data import open_data
from redsam.models import tiny
model, other = tiny("sam"), tiny("sam", seed=1)
other.name = "other"
print("ready", flush=True)
matrix([model], [model, other], open_data(sys.argv[1]), out=sys.argv[2], attacker_protocols=[POINT],
       test_protocols=[POINT, BOX], trials=[Trial(attack="fgsm", threats=linf(4, 8))])
"""


def start(folder: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RUN, str(folder), str(out)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    return child


def lines(out: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in out.glob("records/*/samples.jsonl"))


@pytest.mark.slow
def test_killed_and_resumed_equals_an_uninterrupted_run(tmp_path: Path, kit: Any, folder: Path) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    assert start(folder, whole).wait() == 0
    rng = np.random.default_rng()
    seen = [0]
    # 2 attack cells (10 records), then for each victim 2 clean cells and its replays: 60 records in all.
    for target in (int(rng.integers(1, 9)), int(rng.integers(12, 26)), int(rng.integers(30, 50))):
        child = start(folder, torn)
        while lines(torn) < target and child.poll() is None:
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        child.wait()
        seen.append(lines(torn))
    assert seen == sorted(seen) and seen[1] > 0 and seen[-1] < 60
    assert start(folder, torn).wait() == 0
    assert kit.same(torn) == kit.same(whole)
    assert len(kit.same(whole)) == 60
    for path in whole.glob("**/*.png"):
        assert path.read_bytes() == (torn / path.relative_to(whole)).read_bytes()


def test_an_image_the_source_has_not_is_a_failed_record_with_the_reason(
    tmp_path: Path, kit: Any, model: Segmenter, other: Segmenter
) -> None:
    folder = kit.folder(tmp_path / "data", 3)
    out = tmp_path / "out"
    data = open_data(folder)
    options: dict[str, Any] = {"trials": FAST, "attacker_protocols": [POINT], "out": out}
    matrix([model], [model], data, **options)
    (source,) = [c for c in RunStore(out).cells() if not c.cell.clean]
    (source.folder / "images" / "photo1.png").unlink()
    spoiled = [json.loads(line) for line in source.samples.read_text().splitlines()]
    spoiled[2] |= {"status": "failed", "reason": "RuntimeError: it broke"}
    source.samples.write_text("".join(json.dumps(r) + "\n" for r in spoiled[0:3]))
    found = matrix([model], [other], data, **options)
    (cell,) = [e.cell for e in found.entries if e.trial == "fgsm"]
    records = {name: r for (c, name), r in kit.records(out).items() if c == cell.id}
    assert [records[f"photo{i}"]["status"] for i in range(3)] == ["ok", "failed", "failed"]
    assert "left no image of photo1" in records["photo1"]["reason"]
    assert "failed photo2: RuntimeError: it broke" in records["photo2"]["reason"]
    row = next(r for e, r in found.rows(references=["ground truth"]) if e.cell == cell)
    assert (row["n_images"], row["n_failed"]) == (1, 2)
    assert set(records["photo1"]) == set(records["photo0"]), "records differ in their fields"


def test_a_file_outside_its_budget_ends_the_replay(
    tmp_path: Path, model: Segmenter, other: Segmenter, folder: Path
) -> None:
    cross(tmp_path, model, [model], folder)
    (source,) = [c for c in RunStore(tmp_path).cells() if c.cell.probe["kind"] == "attack"]
    path = source.folder / "images" / "photo2.png"
    path.write_bytes((folder / "photo3.png").read_bytes())
    with pytest.raises(BudgetViolation, match="photo2"):
        cross(tmp_path, model, [other], folder)


# --- one adversarial image for each prompt ---------------------------------------------------------------------------
def test_apart_every_prompt_is_attacked_alone(tmp_path: Path, kit: Any, model: Segmenter, folder: Path) -> None:
    data = open_data(folder).limit(2)
    pgd = replace(kit.one, trials=(Trial(attack="pgd", args={"steps": 2}, threats=linf(8)),))
    summary = audit(model, data, out=tmp_path / "apart", preset=pgd, joint=False, batch=3)
    audit(model, data, out=tmp_path / "together", preset=pgd)
    attack = registry.create("attack", "pgd", steps=2)
    found = kit.records(tmp_path / "apart", attack="pgd")
    assert len(found) == 2
    for (cell, name), one in found.items():
        scene = data.subset([name])[0]
        sample = registry.create("protocol", "point")(scene, seed=0)
        assert one["image"] is None and len(one["prompts"]) == 2 and one["status"] == "ok"
        for i, prompt in enumerate(one["prompts"]):
            adv = read_image(tmp_path / "apart" / "records" / cell / prompt["image"])

            alone = attack.run(
                model,
                scene.image[None],
                [[sample.prompts[i]]],
                threat=Threat(),
                seeds=[stable_seed(0, name, "attack", i)],
            )
            gap = (alone.images[0].int() - to_uint8(adv).int()).abs()
            assert float((gap <= 1).float().mean()) > 0.999, "attacked together with others"
            after = model.predict(adv[None], [[sample.prompts[i]]])[0].masks
            assert sample.masks is not None and prompt["iou_adv_gt"] == float(iou(after[0], sample.masks[i]))
            assert (prompt["linf"], prompt["steps"]) == (8 / 255, 2)
        assert one["l2"] == max(p["l2"] for p in one["prompts"]) and one["psnr"] == min(
            p["psnr"] for p in one["prompts"]
        )
    row = next(r for r in summary.cells if r["attack"] == "pgd")
    assert row["n_prompts"] == 4 and row["n_images"] == 2 and row["steps_mean"] == 2
    each = [p["psnr"] for one in found.values() for p in one["prompts"]]
    assert row["psnr"] == pytest.approx(np.mean(each)) and len(each) == 4
    assert "data:image/" in render(tmp_path / "apart").read_text()
    ids = [
        {r["cell"] for r in json.loads((tmp_path / n / "summary.json").read_text())["cells"]}
        for n in ("apart", "together")
    ]
    assert len(ids[0] & ids[1]) == 1, "the clean cell is the same one, the attack cell is not"


def test_apart_and_crossed_a_prompt_meets_the_image_of_its_object(
    tmp_path: Path, kit: Any, model: Segmenter, other: Segmenter, folder: Path
) -> None:
    found = cross(tmp_path, model, [other], folder, joint=False)
    records = kit.records(tmp_path)
    for entry in found.entries:
        if entry.trial == "fgsm":
            for name in ("photo0", "photo2"):
                one, source = records[entry.cell.id, name], records[entry.cell.probe["of"], name]
                home = f"records/{entry.cell.probe['of']}/"
                files = {p["object"]: home + p["image"] for p in source["prompts"]}
                assert len(set(files.values())) == 2
                assert {p["object"]: p["image"] for p in one["prompts"]} == files


# --- attacks that move prompts, and count queries --------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True)
class Nudge(Attack):
    """Moves every point and box by two pixels to the right and leaves the image; says that it asked three times."""

    def search(self, task: Task) -> Trace:
        def right(prompt: Any) -> Any:
            box = prompt.box and (prompt.box[0] + 2, prompt.box[1], prompt.box[2] + 2, prompt.box[3])
            return replace(prompt, points=tuple((x + 2, y) for x, y in prompt.points), box=box)

        count = len(task)
        return Trace(
            images=task.clean, losses=torch.zeros(1, count), steps=(1,) * count, gradients=0, forwards=0,
            flags=("",) * count, queries=(3,) * count, prompts=tuple(tuple(map(right, p)) for p in task.prompts),
        )  # fmt: skip


@pytest.fixture
def nudge(monkeypatch: pytest.MonkeyPatch) -> tuple[Trial, ...]:
    """Registers the attack for one test."""
    meta = {"norms": ("shift",), "knowledge": ("none",), "kind": "prompt"}
    monkeypatch.setitem(
        registry._entries, ("attack", "nudge"), registry.Entry(kind="attack", name="nudge", obj=Nudge, meta=meta)
    )
    return (Trial(attack="nudge", threats=({"norm": "shift", "eps": 3.0},)),)


def test_a_moved_prompt_is_what_is_scored(
    tmp_path: Path, kit: Any, model: Segmenter, other: Segmenter, folder: Path, nudge: tuple[Trial, ...]
) -> None:
    options: dict[str, Any] = {"trials": nudge, "attacker_protocols": [POINT, BOX], "out": tmp_path}
    data = open_data(folder).limit(2)
    found = matrix([model], [model, other], data, **options)
    entries = [e for e in found.entries if e.trial == "nudge"]
    assert len(entries) == 4
    records = kit.records(tmp_path)
    for entry in entries:
        victim = model if entry.victim == model.name else other
        for scene in (data[0], data[1]):
            one = records[entry.cell.id, scene.id]
            sample = registry.create("protocol", entry.test)(scene, seed=0)
            assert one["shift"] == 2.0 and one["l0"] == 0
            assert entry.cell.replay or one["queries"] == 3
            shifted = [replace_right(p) for p in sample.prompts]
            after = victim.predict(scene.image[None], [shifted])[0].masks
            for i, prompt in enumerate(one["prompts"]):
                assert prompt["geometry"] == shifted[i].to_dict()
                assert prompt["geometry_given"] == sample.prompts[i].to_dict()
                assert sample.masks is not None and prompt["iou_adv_gt"] == float(iou(after[i], sample.masks[i]))
    row = next(r for e, r in found.rows() if e.trial == "nudge" and not e.cell.replay)
    assert row["shift_max"] == 2.0 and row["queries_mean"] == 3
    with pytest.raises(InputError, match="moves these very prompts"):
        matrix([model], [model], data, **(options | {"test_protocols": [POINT, BOX]}))


def replace_right(prompt: Any) -> Any:
    """Two pixels to the right."""
    box = prompt.box and (prompt.box[0] + 2, prompt.box[1], prompt.box[2] + 2, prompt.box[3])
    return replace(prompt, points=tuple((x + 2, y) for x, y in prompt.points), box=box)


def test_without_moved_prompts_nothing_new_stands_in_the_record(
    tmp_path: Path, kit: Any, model: Segmenter, folder: Path
) -> None:
    audit(model, open_data(folder).limit(1), out=tmp_path, preset=kit.one)
    for one in kit.records(tmp_path).values():
        assert "queries" not in one and "shift" not in one
        assert all("geometry_given" not in p and "linf" not in p for p in one["prompts"])


# --- what cannot run is said before anything does --------------------------------------------------------------------
def test_early_refusals(tmp_path: Path, model: Segmenter, folder: Path) -> None:
    data = open_data(folder).limit(1)
    rest: dict[str, Any] = {"trials": FAST, "attacker_protocols": [POINT], "out": tmp_path}
    with pytest.raises(InputError, match="source model and a victim"):
        matrix([], [model], data, **rest)
    with pytest.raises(InputError, match="prompt protocol for the attacker"):
        matrix([model], [model], data, **(rest | {"attacker_protocols": []}))
    with pytest.raises(InputError, match="one prompt each"):
        other = tiny("sam", seed=1)
        matrix([model], [other], data, joint=False, objects="automatic", **rest)
    blind = tiny("sam")
    blind.differentiable = False
    with pytest.raises(InputError, match="follows gradients"):
        matrix([blind], [model], data, **rest)
    assert not list(tmp_path.glob("records/*"))
    assert FGSM() == registry.create("attack", "fgsm")
    matrix([model], [blind], data, **rest)  # a victim only answers


def test_sources_are_trials_by_label(tmp_path: Path, model: Segmenter, other: Segmenter, folder: Path) -> None:
    trials = [Trial(attack="pgd", args={"steps": n}, threats=linf(8), label=f"pgd {n}") for n in (1, 2)]
    found = cross(tmp_path, model, [other], folder, trials=trials, test_protocols=None)
    assert [e.trial for e in found.entries] == ["clean", "pgd 1", "pgd 2"]
    assert {e.test for e in found.entries} == {"point"}
