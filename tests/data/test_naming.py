"""Protocol `text`: one name for each class, its mask the union of the class's regions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from redsam import registry
from redsam.data import from_masks, open_data
from redsam.data.naming import Text, spelled
from redsam.types import Scene


def scene(classes: object, count: int = 4) -> Scene:
    masks = torch.zeros(count, 20, 30, dtype=torch.bool)
    for i in range(count):
        masks[i, 4 * i : 4 * i + 4, 5:25] = True
    meta = {} if classes is None else {"classes": classes}
    return Scene(id="s", image=torch.zeros(3, 20, 30), masks=masks, meta=meta)


def test_one_prompt_for_each_class_with_the_union_of_its_regions() -> None:
    given = scene(["dog", "diningtable", "dog", "cat"])
    sample = Text()(given, seed=0)
    assert [p.text for p in sample.prompts] == ["dog", "dining table", "cat"]
    assert sample.masks is not None and sample.objects == (0, 1, 2)
    assert torch.equal(sample.masks[0], given.masks[0] | given.masks[2])
    assert torch.equal(sample.masks[2], given.masks[3])
    assert {p.kind for p in sample.prompts} == {"text"}


def test_only_some_names() -> None:
    given = scene(["dog", "cat", "dog", "sky"])
    assert [p.text for p in Text(only=("cat", "sky"))(given, seed=0).prompts] == ["cat", "sky"]
    none = Text(only=("bird", "fish"))(given, seed=0)
    assert none.prompts == () and none.meta["skip"] == "there is no bird or fish on the image"


def test_names_only() -> None:
    """A value without a name, an empty name: nobody could ask for it."""
    sample = Text()(scene(["dog", "37", " ", "sky"]), seed=0)
    assert [p.text for p in sample.prompts] == ["dog", "sky"] and sample.objects == (0, 1)


@pytest.mark.parametrize(("classes", "why"), [(None, "no names"), ([], "no names"), (["7", "8", "9", "1"], "no names")])
def test_without_names_an_image_is_skipped(classes: object, why: str) -> None:
    sample = Text()(scene(classes), seed=0)
    assert not sample.prompts and why in sample.meta["skip"]
    automatic = Text()(from_masks(scene(["dog"] * 4), scene(None).masks), seed=0)
    assert not automatic.prompts and "no names" in automatic.meta["skip"]


def test_area_and_count_are_of_classes() -> None:
    many = scene(["dog", "cat", "dog", "sky"])
    assert len(Text(min_area=0.2)(many, seed=0).prompts) == 1  # two strips of dog
    few = Text(max_objects=2)(many, seed=0)
    assert len(few.prompts) == 2 and few.objects == Text(max_objects=2)(many, seed=0).objects
    protocol: Any = registry.create("protocol", "text", max_objects=3)
    assert registry.spec_of(protocol)["name"] == "text"


def test_a_known_set_names_its_classes(tmp_path: Path) -> None:
    root = tmp_path / "voc"
    root.mkdir()
    values = np.zeros((30, 40), np.uint8)
    values[2:12, 2:12], values[15:28, 20:38], values[2:10, 25:38] = 12, 11, 12
    Image.new("RGB", (40, 30)).save(root / "a.jpg")
    Image.fromarray(values).save(root / "a.png")
    sample = Text()(open_data(root)[0], seed=0)
    assert [p.text for p in sample.prompts] == ["dining table", "dog"]
    assert sample.masks is not None and np.array_equal(sample.masks[1].numpy(), values == 12)


def test_one_name_for_the_whole_image() -> None:
    assert [p.text for p in Text()(scene(["baseball bat"]), seed=0).prompts] == ["baseball bat"]
    assert spelled("traffic_light") == "traffic light"


def test_regions_named_for_the_project_keep_their_names_only_where_they_are_the_same() -> None:
    from redsam.data.known import NAMES, given_names

    one = "000000000285"
    assert given_names("coco_panoptic_val", one, [88715, 275827, 5], [1, 2, 3]) == ["grass", "bear", ""]
    assert given_names("coco_panoptic_val", one, [88715, 275826], [1, 2]) == ["grass", ""]
    assert given_names("coco_panoptic_val", "elsewhere", [88715], [1]) == [""]
    table = json.loads((NAMES / "coco_panoptic_val.json").read_text())
    assert len(table) == 100 and sum(map(len, table.values())) == 372
