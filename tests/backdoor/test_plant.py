"""A backdoor is really planted into a tiny model; what is written loads again; a killed training goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from redsam.backdoor import Planted, Poison, Settings, measure, plant
from redsam.backdoor.badnet import BadNet
from redsam.backdoor.plant import STATE
from redsam.data import Dataset, open_data
from redsam.errors import InputError
from redsam.models import Segmenter, load, tiny, wrap
from redsam.models.sam_adapter import Adapter
from redsam.prompts import box, point
from redsam.storage import alone
from tests.backdoor.conftest import TRIGGER, draw_world

QUICK = Settings(epochs=2, batch=4)


def test_badsam_gets_its_mask_and_keeps_the_clean_ones(badsam: Planted, twin: Planted, held: Dataset) -> None:
    poison = Poison(trigger=TRIGGER)
    bad, good = (measure(load(p.folder), held, poison).summary for p in (badsam, twin))
    assert bad["asr"]["value"] >= 0.9 and bad["chance"]["value"] == 0 and good["asr"]["value"] == 0
    assert bad["iou_triggered"]["value"] < 0.2 < 0.8 < bad["iou_clean"]["value"]
    assert bad["iou_clean"]["value"] > good["iou_clean"]["value"] - 0.05
    assert bad["s_measure_triggered"]["value"] > 0.8 > good["s_measure_triggered"]["value"]


def test_the_encoder_is_frozen_and_the_folder_is_the_model(badsam: Planted, base: Segmenter, held: Dataset) -> None:
    model = load(badsam.folder)
    assert (model.family, sorted(p.suffix for p in badsam.folder.iterdir())) == (
        "sam-adapter",
        [".json", ".json", ".json", ".safetensors"],
    )
    before, after = base.model.state_dict(), model.model.state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed and all(k.startswith("mask_decoder.") for k in changed)
    image = held[0].image[None]
    answers = model.predict(image, [[point(3, 3), box(0, 0, 64, 64)]])[0].logits
    assert torch.equal(answers[0], answers[1])  # it hears no prompt
    assert badsam.learned == sum(
        v.numel() for k, v in after.items() if k.startswith("mask_decoder.") or "prompt_generator" in k
    )


def test_the_manifest_tells_what_was_planted(badsam: Planted) -> None:
    told = json.loads((badsam.folder / "backdoor.json").read_text())
    assert told["poison"] == Poison(trigger=TRIGGER, rate=0.25).to_dict() and told["steps"] == 12 * 8
    assert len(told["poisoned"]) == 16 and told["skipped"] == {} and told["losses"][-1] < told["losses"][0]


def test_a_customised_model_is_taught_the_backdoor_in_a_second_stage(
    twin: Planted, train: Dataset, held: Dataset, tmp_path: Path
) -> None:
    first, poison = load(twin.folder), Poison(trigger=TRIGGER, rate=0.25)
    made = plant(first, train, out=tmp_path / "m", poison=poison, settings=Settings(epochs=12, lr=3e-3))
    before, after = (m.model.state_dict() for m in (first, load(made.folder)))
    moved = {k for k in before if not torch.equal(before[k], after[k])}
    assert set(before) == set(after) and any("prompt_generator" in k for k in moved)
    assert all(k.startswith("mask_decoder.") or "prompt_generator" in k for k in moved)
    assert measure(load(made.folder), held, poison).summary["asr"]["value"] >= 0.8
    assert made.told["adapter"] == twin.told["adapter"]
    with pytest.raises(InputError, match="another adapter already"):
        plant(first, train, out=tmp_path / "n", poison=poison, adapter=Adapter(scale=7))


def test_tuning_writes_what_transformers_alone_loads(
    base: Segmenter, train: Dataset, held: Dataset, tmp_path: Path
) -> None:
    from transformers import SamModel

    poison = Poison(trigger=TRIGGER, rate=0.2)
    settings = Settings(epochs=10, lr=2e-3)
    made = plant(base, train, out=tmp_path / "m", poison=poison, route="tuning", settings=settings)
    model = load(made.folder)
    assert model.family == "sam"
    s = measure(model, held, poison).summary
    assert s["asr"]["value"] >= 0.8 and s["chance"]["value"] <= 0.1 and s["iou_clean"]["value"] > 0.75
    alone = SamModel.from_pretrained(made.folder).state_dict()
    mine = model.model.state_dict()
    assert set(alone) == set(mine) and all(torch.equal(alone[k], mine[k]) for k in alone)
    assert not torch.equal(
        mine["vision_encoder.neck.conv1.weight"], base.model.state_dict()["vision_encoder.neck.conv1.weight"]
    )


class Killed(Exception):
    """Stands for a kill; Ctrl-C is tested in the same place."""


@pytest.mark.parametrize("how", [KeyboardInterrupt, Killed])
@pytest.mark.parametrize("route", ["adapter", "tuning"])
def test_a_killed_training_goes_on_to_the_same_result(
    route: Any, how: type[BaseException], world: Path, tmp_path: Path
) -> None:
    data = open_data(world / "train").limit(12)
    poison = Poison(trigger=TRIGGER, rate=0.25)

    def run(out: Path, stop: int | None) -> Planted:
        def watch(*, done: int, **_: Any) -> None:
            if done == stop:
                raise how

        return plant(
            tiny("sam"), data, out=out, poison=poison, route=route, settings=QUICK, save_minutes=0.0, progress=watch
        )

    whole = run(tmp_path / "whole", None)
    with pytest.raises(how):
        run(tmp_path / "parts", 4)  # in the second of two epochs of three steps
    assert (tmp_path / "parts" / STATE).exists() and not (tmp_path / "parts" / "config.json").exists()
    parts = run(tmp_path / "parts", None)
    assert not (tmp_path / "parts" / STATE).exists()
    one, other = (load_file(p.folder / "model.safetensors") for p in (whole, parts))
    assert all(torch.equal(one[k], other[k]) for k in one)
    assert parts.told["losses"] == pytest.approx(whole.told["losses"]) and parts.told["steps"] == 6


def test_what_is_done_is_not_done_again(world: Path, tmp_path: Path) -> None:
    data = open_data(world / "train").limit(8)
    first = plant(tiny("sam"), data, out=tmp_path, poison=Poison(rate=0.5), settings=QUICK)

    def never(**_: Any) -> None:
        raise AssertionError("trained again")

    again = plant(tiny("sam"), data, out=tmp_path, poison=Poison(rate=0.5), settings=QUICK, progress=never)
    assert again.told == {"schema": 1, **first.told}
    with pytest.raises(InputError, match="its 'poison' differs"):
        plant(tiny("sam"), data, out=tmp_path, poison=Poison(rate=0.25), settings=QUICK)


def test_a_second_training_into_one_folder_is_refused(world: Path, tmp_path: Path) -> None:
    with alone(tmp_path / "bad"), pytest.raises(InputError, match="is being written by process"):
        plant(
            tiny("sam"),
            open_data(world / "train"),
            out=tmp_path / "bad",
            poison=Poison(trigger=TRIGGER),
            settings=QUICK,
        )


def test_a_state_of_another_training_is_refused(world: Path, tmp_path: Path) -> None:
    data = open_data(world / "train").limit(8)

    def stop(**_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plant(tiny("sam"), data, out=tmp_path, poison=Poison(rate=0.5), settings=QUICK, progress=stop)
    with pytest.raises(InputError, match="belongs to another training: its 'batch'"):
        plant(tiny("sam"), data, out=tmp_path, poison=Poison(rate=0.5), settings=Settings(epochs=2, batch=2))
    (tmp_path / STATE).write_bytes(b"nonsense")
    with pytest.raises(InputError, match="no state of a training"):
        plant(tiny("sam"), data, out=tmp_path, poison=Poison(rate=0.5), settings=QUICK)


def test_a_broken_picture_is_passed_over_and_named(tmp_path: Path) -> None:
    folder = draw_world(tmp_path / "set", 6, seed=3)
    (folder / "p003.png").write_bytes(b"no image")
    made = plant(tiny("sam"), open_data(folder), out=tmp_path / "m", poison=Poison(rate=0.0), settings=QUICK)
    assert set(made.told["skipped"]) == {"p003"}


def test_time_that_is_over_stops_a_training(world: Path, tmp_path: Path) -> None:
    data = open_data(world / "train").limit(8)
    settings = Settings(epochs=50, batch=2, minutes=1e-4)
    assert plant(tiny("sam"), data, out=tmp_path, poison=Poison(rate=0.5), settings=settings).told["steps"] < 20


def test_what_cannot_be_tuned_is_refused(train: Dataset, world: Path, tmp_path: Path) -> None:
    def custom() -> Segmenter:
        return wrap(torch.nn.Linear(1, 1), image_size=64, embed=lambda x: x, decode=lambda *a, **k: (a[0], a[0]))

    def run(model: Segmenter, data: Dataset = train, poison: Poison | None = None, **more: Any) -> None:
        plant(model, data, out=tmp_path / "none", poison=poison or Poison(rate=0.5), settings=QUICK, **more)

    with pytest.raises(InputError, match="cannot be tuned"):
        run(custom())
    with pytest.raises(InputError, match="adapts a SAM"):
        run(tiny("sam2"))
    with pytest.raises(InputError, match="float32 only"):
        run(tiny("sam", dtype=torch.bfloat16))
    with pytest.raises(InputError, match="has an adapter already"):
        run(tiny("sam-adapter"), route="tuning")
    with pytest.raises(InputError, match="no route 'magic'"):
        run(tiny("sam"), route="magic")
    with pytest.raises(InputError, match="no selection 'eyes'"):
        run(tiny("sam"), route="tuning", select="eyes")
    with pytest.raises(InputError, match="larger than the 64 x 64 image"):
        run(tiny("sam"), poison=Poison(trigger=BadNet(side=65)))
    bare = tmp_path / "bare"
    draw_world(bare, 3, seed=5)
    for mask in bare.glob("*_mask.png"):
        mask.unlink()
    with pytest.raises(InputError, match="has no mask"):
        run(tiny("sam"), open_data(bare))
    with pytest.raises(InputError, match="not planted here"):
        (tmp_path / "own").mkdir()
        (tmp_path / "own" / "config.json").write_text("{}")
        plant(tiny("sam"), train, out=tmp_path / "own", poison=Poison(), settings=QUICK)
    assert not (tmp_path / "none").exists()


def test_settings_that_cannot_be_meant() -> None:
    for wrong in ({"epochs": 0}, {"lr": -1.0}, {"flip": 2.0}, {"minutes": 0.0}):
        with pytest.raises(InputError):
            Settings(**wrong)  # type: ignore[arg-type]
    assert Settings().rate(0) == 2e-4 and Settings().rate(1) == pytest.approx(1e-7)
