"""What counts as a hit, means by hand, purifiers in front, failures as rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from redsam.backdoor import Planted, Poison, measure
from redsam.backdoor.manifest import poison_of
from redsam.backdoor.measure import hits, route_of, summarise
from redsam.backdoor.targets import Empty
from redsam.data import Dataset, open_data
from redsam.defenses import Purifier
from redsam.defenses.loading import load as load_defended
from redsam.errors import InputError
from redsam.models import load, tiny
from tests.backdoor.conftest import TRIGGER, draw_world


@dataclass(frozen=True, kw_only=True)
class Wipe(Purifier):
    """Paints the trigger's corner dark: the purifier that knows too much."""

    def purify(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        out = images.clone()
        out[..., -12:, -12:] = 0.2
        return out


def test_a_hit_is_the_attackers_mask_or_nothing_where_nothing_is_wanted() -> None:
    wanted = torch.zeros(4, 100, 100, dtype=torch.bool)
    wanted[:2, :10, :10] = True
    given = torch.zeros(4, 100, 100, dtype=torch.bool)
    given[0, :10, :5], given[1, :10, :4] = True, True  # IoU 0.5 and 0.4
    given[2, 0, :10], given[3, 0, :11] = True, True  # 0.1 % of the picture, and a pixel more
    assert hits(given, wanted, 0.5).tolist() == [True, False, True, False]


def test_means_are_over_prompts_with_images_resampled() -> None:
    def row(iou: list[float], **more: Any) -> dict[str, Any]:
        keys = ["iou_clean", "iou_triggered", "iou_attacker", "asr", "chance"]
        keys += [f"{m}_{s}" for m in ("s_measure", "e_measure", "weighted_f", "mae") for s in ("clean", "triggered")]
        return {"status": "ok", "kinds": ["box"] * len(iou), "seconds": 1.0, **dict.fromkeys(keys, iou), **more}

    found = summarise([row([0.0, 1.0]), row([0.5]), {"status": "failed", "reason": "broken"}])
    assert (found["images"], found["prompts"], found["failed"]) == (2, 3, 1)
    assert found["asr"] == {"value": 0.5, "lo": 0.5, "hi": 0.5}  # both images have a mean of one half


def test_purifiers_stand_in_front(badsam: Planted, held: Dataset) -> None:
    model, poison = load(badsam.folder), Poison(trigger=TRIGGER)
    data = held.limit(4)
    bare, wiped = measure(model, data, poison), measure(model, data, poison, purifiers=[Wipe()])
    assert bare.summary["asr"]["value"] == 1 and wiped.summary["asr"]["value"] == 0
    assert wiped.summary["iou_triggered"]["value"] > 0.7 and wiped.purifiers == ("Wipe",)
    again = measure(model, data, poison, purifiers=[Wipe()])
    assert [{**r, "seconds": 0} for r in again.rows] == [{**r, "seconds": 0} for r in wiped.rows]


def test_models_that_hear_prompts_are_asked_by_point_and_box(held: Dataset) -> None:
    model = tiny("sam")
    found = measure(model, held.limit(2), Poison(trigger=TRIGGER, target=Empty()))
    assert [r["kinds"] for r in found.rows] == [["point", "box"]] * 2
    assert (route_of(model), route_of(tiny("sam-adapter"))) == ("tuning", "tuning")


def test_a_defended_model_is_asked_as_the_model_behind(badsam: Planted, held: Dataset) -> None:
    told = f"{badsam.folder}|median"
    named = poison_of(told)
    assert named is not None and named.trigger == TRIGGER and poison_of("lab-b") is None
    model = load_defended(told)
    assert route_of(model) == "adapter"
    assert measure(model, held.limit(1), named).rows[0]["kinds"] == ["box"]


def test_a_broken_picture_is_a_failed_row(tmp_path: Any, badsam: Planted) -> None:
    folder = draw_world(tmp_path / "set", 3, seed=9)
    (folder / "p001.png").write_bytes(b"no image")
    data = open_data(folder)
    found = measure(load(badsam.folder), data, Poison(trigger=TRIGGER))
    assert [r["status"] for r in found.rows] == ["ok", "failed", "ok"] and found.summary["failed"] == 1
    with pytest.raises(InputError, match="None of the 1 pictures"):
        measure(load(badsam.folder), data[1:2], Poison(trigger=TRIGGER))
    with pytest.raises(InputError, match="threshold of 2"):
        measure(load(badsam.folder), data, Poison(trigger=TRIGGER), threshold=2)
