"""Whatever goes wrong with an image becomes a record; only storage, budgets and the user end a run."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from redsam import registry
from redsam.attacks.base import Attack
from redsam.attacks.fgsm import FGSM
from redsam.attacks.loop import Trace
from redsam.attacks.task import Task
from redsam.bench import RunStore, audit, executor
from redsam.bench.presets import Trial, linf
from redsam.data import open_data, read_image
from redsam.errors import BudgetViolation, InputError
from redsam.metrics import boundary_iou, iou
from redsam.models.base import Segmenter
from redsam.threat import Threat
from redsam.types import to_uint8


def test_a_broken_image_is_a_failed_record_and_the_run_goes_on(kit: Any, tmp_path: Path, model: Segmenter) -> None:
    folder = kit.folder(tmp_path / "data", 3)
    (folder / "photo1.png").write_bytes((folder / "photo1.png").read_bytes()[:300])  # truncated
    summary = audit(model, open_data(folder), out=tmp_path / "out", preset=kit.one)
    found = kit.records(tmp_path / "out", attack="fgsm")
    assert [r["status"] for r in found.values()] == ["ok", "failed", "ok"]
    broken = found[next(k for k in found if k[1] == "photo1")]
    assert "truncated" in broken["reason"] and broken["prompts"] == [] and broken["linf"] is None
    row = next(r for r in summary.cells if r["attack"] == "fgsm" and r["reference"] == "ground truth")
    assert (row["n_images"], row["n_failed"], row["n_prompts"]) == (2, 1, 4)
    assert {f["sample"] for f in summary.failures} == {"photo1"} and summary.unfinished == ()
    assert set(broken) == set(found[next(k for k in found if k[1] == "photo0")]), "records differ in their fields"


def test_an_image_with_nothing_to_prompt_is_skipped_with_a_reason(kit: Any, tmp_path: Path, model: Segmenter) -> None:
    folder = kit.folder(tmp_path / "data", 2)
    (folder / "photo0_mask.png").unlink()
    summary = audit(model, open_data(folder), out=tmp_path / "out", preset=kit.one)
    statuses = {r["sample"]: (r["status"], r["reason"]) for r in kit.records(tmp_path / "out").values()}
    assert statuses["photo0"][0] == "skipped" and "no annotated object" in statuses["photo0"][1]
    assert statuses["photo1"] == ("ok", None)
    assert all(row["n_skipped"] == 1 and row["n_failed"] == 0 for row in summary.cells)


def test_numbers_are_those_of_the_saved_file(kit: Any, tmp_path: Path, model: Segmenter, folder: Path) -> None:
    """Recomputed by hand from the PNG on disk: budget, IoU, boundary IoU."""
    out = tmp_path / "out"
    audit(model, open_data(folder), out=out, preset=kit.one)
    data = open_data(folder)
    for (cell, name), one in kit.records(out, attack="fgsm").items():
        scene = data.subset([name])[0]
        adv = read_image(out / "records" / cell / one["image"])
        clean = read_image(out / one["clean_image"])
        assert torch.equal(clean, scene.image)
        spent = Threat.measure(to_uint8(adv), to_uint8(clean))
        assert (one["linf"], one["l2"], one["l0"]) == spent[:3] and spent.linf == 8 / 255
        sample = registry.create("protocol", "point")(scene, seed=0)
        before, after = (model.predict(i[None], [sample.prompts])[0].masks for i in (clean, adv))
        assert sample.masks is not None
        for i, prompt in enumerate(one["prompts"]):
            assert prompt["geometry"] == sample.prompts[i].to_dict()
            assert prompt["iou_clean_gt"] == float(iou(before[i], sample.masks[i]))
            assert prompt["iou_adv_gt"] == float(iou(after[i], sample.masks[i]))
            assert prompt["iou_adv_clean"] == float(iou(after[i], before[i]))
            assert prompt["biou_adv_gt"] == float(boundary_iou(after[i], sample.masks[i]))


def test_clean_answers_on_the_disk_are_not_asked_for_again(
    kit: Any, tmp_path: Path, model: Segmenter, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on takes them from the clean cell's records, and its own are what they would have been."""
    audit(model, open_data(folder), out=tmp_path / "whole", preset=kit.one)
    audit(model, open_data(folder), out=tmp_path / "two", preset=replace(kit.one, trials=()))
    asked: list[str] = []
    predict = executor.predict

    def watched(segmenter: Segmenter, cell: Any, samples: Any) -> Any:
        asked.extend(s.id for s in samples)
        return predict(segmenter, cell, samples)

    monkeypatch.setattr(executor, "predict", watched)
    gone = next((tmp_path / "two" / "images").glob("photo1.png"))
    gone.unlink()  # an answer without its image is asked for again
    audit(model, open_data(folder), out=tmp_path / "two", preset=kit.one)
    assert sorted(asked) == ["photo0", "photo1", "photo1", "photo2", "photo3", "photo4"] and gone.is_file()
    assert kit.same(tmp_path / "two") == kit.same(tmp_path / "whole")


def test_batch_changes_no_record(kit: Any, close: Any, tmp_path: Path, model: Segmenter) -> None:
    folder = kit.folder(tmp_path / "data", 5, sizes=((48, 64), (64, 48), (48, 64)))
    found = []
    for batch in (1, 3):
        out = tmp_path / str(batch)
        audit(model, open_data(folder), out=out, preset=kit.one, batch=batch)
        found.append(kit.same(out))
    assert found[0].keys() == found[1].keys()
    for key, one in found[0].items():
        close(one, found[1][key])


@dataclass(frozen=True, kw_only=True)
class Stumbling(FGSM):
    """How: "oom-batch" runs out of memory above one image, "oom" always, "crash" on photo2 alone, "lie" breaks its
    budget, "interrupt" is the user."""

    how: str = ""

    def search(self, task: Task) -> Trace:
        if self.how == "oom" or (self.how == "oom-batch" and len(task) > 1):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        if self.how == "crash" and any(torch.equal(image, CRASH[0]) for image in task.clean):
            raise RuntimeError("the size of tensor a must match")
        if self.how == "lie":
            raise BudgetViolation("image 0: linf is 1, the budget 0.03.")
        if self.how == "interrupt":
            raise KeyboardInterrupt
        return super().search(task)


CRASH: list[torch.Tensor] = []
META = {"norms": ("linf",), "kind": "white-box", "knowledge": ("white-box",)}


@pytest.fixture
def stumbling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers the attack for one test."""
    entry = registry.Entry(kind="attack", name="stumbling", obj=Stumbling, meta=META)
    monkeypatch.setitem(registry._entries, ("attack", "stumbling"), entry)


def stumble(kit: Any, how: str) -> Any:
    return replace(kit.one, trials=(Trial(attack="stumbling", args={"how": how}, threats=linf(8)),))


@pytest.mark.usefixtures("stumbling")
@pytest.mark.parametrize("how, good", [("oom-batch", 5), ("oom", 0), ("crash", 4)])
def test_errors_of_a_batch_cost_only_the_images_that_cause_them(
    kit: Any, tmp_path: Path, model: Segmenter, folder: Path, how: str, good: int
) -> None:
    CRASH[:] = [read_image(folder / "photo2.png")]
    summary = audit(model, open_data(folder), out=tmp_path, preset=stumble(kit, how), batch=4)
    found = list(kit.records(tmp_path, attack="stumbling").values())
    assert len(found) == 5 and sum(r["status"] == "ok" for r in found) == good
    reasons = [r["reason"] for r in found if r["status"] == "failed"]
    assert all(r.startswith(("OutOfMemoryError: ", "RuntimeError: the size of tensor")) for r in reasons)
    assert len(summary.failures) == 5 - good and summary.unfinished == ()


@pytest.mark.usefixtures("stumbling")
def test_a_broken_budget_ends_the_run(kit: Any, tmp_path: Path, model: Segmenter, folder: Path) -> None:
    with pytest.raises(BudgetViolation):
        audit(model, open_data(folder), out=tmp_path, preset=stumble(kit, "lie"))


@pytest.mark.usefixtures("stumbling")
def test_the_user_stops_a_run_and_hears_how_to_go_on(kit: Any, tmp_path: Path, model: Segmenter, folder: Path) -> None:
    heard: list[str] = []

    class Listening:
        def start(self, **_: Any) -> None: ...
        def cell(self, *_: Any, **__: Any) -> None: ...
        def image(self, record: Any) -> None: ...
        def stop(self, message: str) -> None:
            heard.append(message)

    with pytest.raises(KeyboardInterrupt):
        audit(model, open_data(folder), out=tmp_path, preset=stumble(kit, "interrupt"), progress=Listening())
    assert len(heard) == 1 and str(tmp_path) in heard[0] and "goes on" in heard[0]
    assert len(kit.records(tmp_path, attack="none")) == 5  # the clean cell was finished and is there


def test_a_gradient_that_is_not_finite_is_a_failed_record(kit: Any, tmp_path: Path, folder: Path) -> None:
    from redsam.models import tiny

    broken = tiny("sam")
    broken.model.vision_encoder.patch_embed.projection.register_full_backward_hook(  # type: ignore[union-attr]
        lambda module, grads, _: tuple(None if g is None else g * float("nan") for g in grads)
    )
    audit(broken, open_data(folder), out=tmp_path, preset=kit.one)
    found = list(kit.records(tmp_path, attack="fgsm").values())
    assert len(found) == 5
    assert all(r["status"] == "failed" and "non-finite gradient" in r["reason"] for r in found)


def test_a_full_disk_in_the_middle_ends_the_run_and_it_goes_on(
    kit: Any, tmp_path: Path, model: Segmenter, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    real, count = os.fsync, [0]

    def fsync(number: int) -> None:
        count[0] += 1
        if count[0] > 17:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(InputError, match="disk is full"):
        audit(model, open_data(folder), out=tmp_path / "a", preset=kit.one)
    monkeypatch.undo()
    kept = len(kit.records(tmp_path / "a"))
    assert kept > 0
    audit(model, open_data(folder), out=tmp_path / "a", preset=kit.one)
    audit(model, open_data(folder), out=tmp_path / "b", preset=kit.one)
    same = [kit.same(tmp_path / name) for name in ("a", "b")]
    assert same[0] == same[1] and len(same[0]) == 10


def test_an_attack_on_all_its_options_is_its_spec(kit: Any, tmp_path: Path, model: Segmenter, folder: Path) -> None:
    audit(model, open_data(folder).limit(1), out=tmp_path, preset=kit.one)
    for cell in RunStore(tmp_path).cells():
        spec = json.loads((cell.folder / "spec.json").read_text())
        assert spec["joint"] is True and spec["protocol"]["args"]["min_area"] == 0.01
        if not cell.cell.clean:
            attack: Attack = registry.create("attack", "fgsm", **spec["probe"]["args"])
            assert attack == FGSM()
