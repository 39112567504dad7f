"""COCO and SA-1B against pycocotools on files written here."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from redsam.data import coco, open_data
from redsam.data.coco import paint, uncompressed
from redsam.errors import InputError

HEIGHT, WIDTH = 40, 60


def blob(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((HEIGHT, WIDTH)) > 0.6


def compressed(mask: np.ndarray) -> dict[str, Any]:
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": code["size"], "counts": code["counts"].decode()}


def plain(mask: np.ndarray) -> dict[str, Any]:
    return {"size": list(mask.shape), "counts": uncompressed(compressed(mask)["counts"])}


SEGMENTATIONS: list[Any] = [
    [[5.5, 5.2, 30.1, 8.9, 25.0, 33.3]],
    [[2, 2, 12, 2, 12, 12, 2, 12], [20, 20, 50.5, 21, 40, 39.5]],
    [[-4, -4, 70, 3, 58, 44]],
    plain(blob(1)),
    compressed(blob(2)),
    compressed(np.zeros((HEIGHT, WIDTH), bool)),
    compressed(np.ones((HEIGHT, WIDTH), bool)),
]


def write(root: Path, *, images: str = "val", where: str = "annotations/instances_val.json") -> Path:
    (root / images).mkdir(parents=True, exist_ok=True)
    for i in (1, 2):
        Image.new("RGB", (WIDTH, HEIGHT), (i * 40, 9, 9)).save(root / images / f"{i:04d}.jpg")
    listed = [{"id": i, "file_name": f"{i:04d}.jpg", "height": HEIGHT, "width": WIDTH} for i in (1, 2)]
    found = [
        {"id": n, "image_id": 1, "category_id": 1 + n % 2, "iscrowd": int(n == 3), "segmentation": s, "area": 1}
        for n, s in enumerate(SEGMENTATIONS)
    ]
    path = root / where
    path.parent.mkdir(parents=True, exist_ok=True)
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "cup"}]
    path.write_text(json.dumps({"images": listed, "annotations": found, "categories": categories}))
    return path


def test_same_masks_as_pycocotools(tmp_path: Path) -> None:
    path = write(tmp_path)
    with contextlib.redirect_stdout(io.StringIO()):
        oracle = COCO(str(path))
    scene = open_data(path, crowd=True)[0]
    expected = [oracle.annToMask(oracle.anns[n]).astype(bool) for n in range(len(SEGMENTATIONS))]
    np.testing.assert_array_equal(scene.masks.numpy(), np.stack(expected))
    assert scene.meta["classes"] == ["cat" if n % 2 == 0 else "cup" for n in range(len(SEGMENTATIONS))]


def test_crowds_are_left_out_and_images_without_objects_stay(tmp_path: Path) -> None:
    data = open_data(write(tmp_path))
    assert data.ids == ("0001", "0002")
    assert [len(s.masks) for s in data] == [len(SEGMENTATIONS) - 1, 0]


@pytest.mark.parametrize(
    ("images", "where", "given"),
    [
        ("val", "annotations/instances_val.json", "."),
        ("val", "annotations/instances_val.json", "annotations/instances_val.json"),
        ("images", "annotations.json", "."),
        (".", "_annotations.coco.json", "."),
        ("images/train", "annotations/train.json", "."),
    ],
)
def test_layouts(tmp_path: Path, images: str, where: str, given: str) -> None:
    write(tmp_path, images=images, where=where)
    assert open_data(tmp_path / given)[1].id == "0002"


def test_images_elsewhere_and_in_subfolders(tmp_path: Path) -> None:
    path = write(tmp_path, images="far/away", where="x.json")
    with pytest.raises(InputError, match="images were not found"):
        open_data(path)
    assert len(open_data(path, images=tmp_path / "far" / "away")) == 2
    table = json.loads(path.read_text())
    for entry in table["images"]:
        entry["file_name"] = "away/" + entry["file_name"]
    path.write_text(json.dumps(table))
    assert open_data(path, images=tmp_path / "far").ids == ("away__0001", "away__0002")


def test_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path)
    calls: list[Path] = []
    parse = coco._parse
    monkeypatch.setattr(coco, "_parse", lambda p: calls.append(p) or parse(p))
    data = open_data(path)
    for i in (0, 1, 0):
        data.limit(2)[i]
    assert data.fingerprint and calls == [path]


def test_fingerprint_sees_annotations_of_its_images_only(tmp_path: Path) -> None:
    path = write(tmp_path)
    whole, second = open_data(path).fingerprint, open_data(path).subset(["0002"]).fingerprint
    table = json.loads(path.read_text())
    table["annotations"].pop()
    path.write_text(json.dumps(table))
    assert open_data(path).fingerprint != whole
    assert open_data(path).subset(["0002"]).fingerprint == second


NO_COCO = ["", "{", "[1]", "{}", '{"images": []}', '{"images": [{}], "annotations": []}', "\0"]


@pytest.mark.parametrize("content", NO_COCO)
def test_files_that_are_no_coco(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError) as caught:
        open_data(tmp_path / "a.json")
    assert "a.json" in str(caught.value) and "\n" not in str(caught.value)


BROKEN: list[Any] = [
    {"size": [HEIGHT, WIDTH + 1], "counts": [HEIGHT * (WIDTH + 1)]},
    {"size": [HEIGHT, WIDTH], "counts": [5, 5]},
    {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH + 5, -5]},
    {"size": [HEIGHT, WIDTH], "counts": "zzzzzz"},
    {"size": [HEIGHT, WIDTH], "counts": "\u00e9"},
    {"size": [HEIGHT, WIDTH], "counts": ""},
    {"size": [HEIGHT, WIDTH]},
    {"size": None, "counts": [1]},
    [[1, 2, 3, float("nan"), 5, 6]],
    [[float("nan")] * 6],
    [[1, 2, float("inf"), 4, 5, 6]],
    [[1, 2, 1e9, 4, 5, 6]],
    [["a", "b", "c", "d", "e", "f"]],
    "polygon",
    None,
    7,
]


@pytest.mark.parametrize("segmentation", BROKEN)
def test_broken_segmentations(segmentation: Any) -> None:
    with pytest.raises(InputError) as caught:
        paint(np.zeros((HEIGHT, WIDTH), bool), segmentation)
    assert "\n" not in str(caught.value)


def test_a_broken_annotation_names_its_image(tmp_path: Path) -> None:
    path = write(tmp_path)
    table = json.loads(path.read_text())
    table["annotations"][0]["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": [3]}
    path.write_text(json.dumps(table))
    data = open_data(path)
    with pytest.raises(InputError, match="0001.*run lengths"):
        data[0]
    assert data[1].id == "0002"


@settings(max_examples=80, deadline=None)
@given(arrays(np.bool_, st.tuples(st.integers(2, 40), st.integers(2, 40))))
def test_run_lengths_round_trip(mask: np.ndarray) -> None:
    code = compressed(mask)
    for segmentation in (code, {"size": code["size"], "counts": uncompressed(code["counts"])}):
        got = np.zeros_like(mask)
        paint(got, segmentation)
        np.testing.assert_array_equal(got, mask)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=[chr(c) for c in range(40, 120)], max_size=30))
def test_random_codes_never_crash(text: str) -> None:
    with contextlib.suppress(InputError):
        paint(np.zeros((9, 7), bool), {"size": [9, 7], "counts": text})


def write_sa1b(root: Path) -> list[np.ndarray]:
    masks = [blob(seed) for seed in range(4)]
    for i in (2, 10):
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / f"sa_{i}.jpg")
        found = [{"segmentation": compressed(m), "id": n, "area": int(m.sum())} for n, m in enumerate(masks)]
        head = {"image_id": i, "width": WIDTH, "height": HEIGHT, "file_name": f"sa_{i}.jpg"}
        (root / f"sa_{i}.json").write_text(json.dumps({"image": head, "annotations": found}))
    return masks


def test_sa1b(tmp_path: Path) -> None:
    masks = write_sa1b(tmp_path)
    data = open_data(tmp_path)
    assert data.ids == ("sa_2", "sa_10"), "by number, as the set is"
    np.testing.assert_array_equal(data[0].masks.numpy(), np.stack(masks))
    assert open_data(tmp_path / "sa_10.json").ids == ("sa_10",)


def test_sa1b_broken(tmp_path: Path) -> None:
    write_sa1b(tmp_path)
    (tmp_path / "sa_2.json").unlink()
    (tmp_path / "sa_10.json").write_text('{"shapes": []}')
    data = open_data(tmp_path)
    with pytest.raises(InputError, match="sa_2.json"):
        data[0]
    with pytest.raises(InputError, match="no SA-1B"):
        data[1]
