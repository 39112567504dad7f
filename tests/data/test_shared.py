"""The shared photographs, where they are: counts, meaning of the values, and that every scene can be read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from redsam.data import open_data, shared_root
from redsam.data.known import RULES
from redsam.data.protocols import Point

ROOT = shared_root()
pytestmark = pytest.mark.skipif(ROOT is None, reason="the shared photographs are not here; set REDSAM_DATA")
EVAL = {
    "bsds_test": 200,
    "coco_panoptic_val": 100,
    "sa1b": 5,
    "camvid720": 50,
    "acdc_weather": 39,
    "lowcontrast": 120,
    "cvc_polyp": 77,
    "radiate_fog_nomask": 25,
    "rainhaze_nomask": 24,
}


def folder(name: str) -> Path:
    assert ROOT is not None
    return ROOT / "eval" / name


@pytest.mark.parametrize(("name", "count"), EVAL.items())
def test_counts_and_a_few_scenes(name: str, count: int) -> None:
    data = open_data(name)
    assert len(data) == count and data.name == name
    for scene in data.limit(4):
        sample = Point()(scene, seed=0)
        if name.endswith("nomask"):
            assert len(scene.masks) == 0 and "skip" in sample.meta
        else:
            assert len(scene.masks) and scene.masks.any((1, 2)).all() and sample.prompts


@pytest.mark.parametrize("name", ["bsds_test", "coco_panoptic_val"])
def test_instance_sets_cover_their_map(name: str) -> None:
    scene = open_data(name)[3]
    ids = np.asarray(Image.open(folder(name) / f"{scene.id}.png"))
    for mask, value in zip(scene.masks, scene.meta["labels"], strict=True):
        np.testing.assert_array_equal(mask.numpy(), ids == value)
    np.testing.assert_array_equal(scene.masks.any(0).numpy(), ids != 0)


def test_low_contrast_is_one_object_without_the_ignored_rim() -> None:
    for scene in open_data("lowcontrast").limit(20):
        ids = np.asarray(Image.open(folder("lowcontrast") / f"{scene.id}.png"))
        np.testing.assert_array_equal(scene.masks.numpy(), (ids == 1)[None])


def test_weather_has_conditions_and_class_names() -> None:
    data = open_data("acdc_weather")
    found = [i.split("__")[0] for i in data.ids]
    assert {c: found.count(c) for c in set(found)} == {"fog": 5, "rain": 10, "snow": 9, "night": 10, "normal": 5}
    scene = data[0]
    assert scene.meta["condition"] == "fog"
    assert data[found.index("normal")].meta["condition"] == "clear"
    largest = {}  # a name table off by one would not put the sky above the road
    for mask, name in zip(scene.masks, scene.meta["classes"], strict=True):
        if mask.sum() > largest.get(name, np.zeros(1)).sum():
            largest[name] = mask.numpy()
    heights = {name: np.nonzero(mask)[0].mean() for name, mask in largest.items()}
    assert heights["sky"] < heights["vegetation"] < heights["road"]
    assert len({i.split("__")[0] for i in data.limit(8).ids}) == 5, "a limit reaches every condition"


def test_annotators_of_bsds() -> None:
    data = open_data("bsds_test", annotator=0)
    with np.load(folder("bsds_test") / f"{data.ids[0]}_all.npz") as stored:
        assert len(data[0].masks) == len(np.unique(stored["arr_0"]))
    assert data.fingerprint != open_data("bsds_test").fingerprint


def test_sa1b_equals_pycocotools() -> None:
    scene = open_data("sa1b")[0]
    found = json.loads((folder("sa1b") / f"{scene.id}.json").read_text())["annotations"]
    assert len(found) == len(scene.masks) > 50
    for mask, annotation in list(zip(scene.masks, found, strict=True))[::7]:
        np.testing.assert_array_equal(mask.numpy(), coco_mask.decode(annotation["segmentation"]).astype(bool))
        assert int(mask.sum()) == annotation["area"]


def test_every_rule_names_a_set_that_is_here() -> None:
    assert ROOT is not None
    missing = [n for n in RULES if not any((ROOT / shelf / n).is_dir() for shelf in ("eval", "pool"))]
    assert missing == []
    assert len(open_data("bsds")) == 201 and len(open_data("voc")) == 2357
    assert len(RULES["acdc_weather"].classes) == 19 and len(RULES["voc"].classes) == 20
