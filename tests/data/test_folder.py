"""Layouts of mask folders, and how a data set behaves."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from redsam import registry
from redsam.data import Dataset, open_data, shared_root
from redsam.data.demo import demo_root
from redsam.errors import InputError, UnknownName

IDS = np.zeros((12, 16), np.uint8)
IDS[2:6, 3:9], IDS[8:11, 1:15] = 1, 2


def image(path: Path, shade: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*IDS.shape, 3), shade, np.uint8)).save(path)


def mask(path: Path, ids: np.ndarray = IDS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, ids) if path.suffix == ".npy" else Image.fromarray(ids).save(path)


LAYOUTS: dict[str, Callable[[Path], Path]] = {}


def layout(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
    LAYOUTS[make.__name__] = make
    return make


@layout
def beside(root: Path) -> Path:
    for name, suffix in (("a", "jpg"), ("b", "webp"), ("c", "JPEG")):
        image(root / f"{name}.{suffix}")
        mask(root / f"{name}.png")
    return root


@layout
def mask_suffix(root: Path) -> Path:
    for name in "abc":
        image(root / f"{name}.png")
        mask(root / f"{name}_mask.png")
    return root


@layout
def npy_stack(root: Path) -> Path:
    for name in "abc":
        image(root / f"{name}.png")
        mask(root / f"{name}.npy", np.stack([IDS == 1, IDS == 2]))
    return root


@layout
def two_folders(root: Path) -> Path:
    for name in "abc":
        image(root / "images" / f"{name}.png")
        mask(root / "masks" / f"{name}.png")
    return root


@layout
def sibling_of_the_images_given(root: Path) -> Path:
    return two_folders(root) / "images"


@layout
def folder_below(root: Path) -> Path:
    for name in "abc":
        image(root / f"{name}.png")
        mask(root / "labels" / f"{name}.png")
    return root


@layout
def one_file_per_object(root: Path) -> Path:
    for name in "abc":
        image(root / "images" / f"{name}.jpg")
        for value in (1, 2):
            mask(root / "masks" / name / f"{value}.png", ((value == IDS) * 255).astype(np.uint8))
    return root


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(tmp_path: Path, name: str) -> None:
    data = open_data(LAYOUTS[name](tmp_path))
    assert data.ids == ("a", "b", "c") and len(data) == 3
    for scene in data:
        np.testing.assert_array_equal(scene.masks.numpy(), np.stack([IDS == 1, IDS == 2]))


def test_images_without_masks(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    image(tmp_path / "b.jpg")
    mask(tmp_path / "b.png")
    data = open_data(tmp_path)
    assert [len(scene.masks) for scene in data] == [0, 2]
    assert data[0].masks.shape == (0, 12, 16) and data[0].masks.dtype == torch.bool


def test_a_stray_json_does_not_make_it_coco(tmp_path: Path) -> None:
    for content in ('{"classes": ["cat"]}', ""):
        (beside(tmp_path) / "classes.json").write_text(content)
        assert len(open_data(tmp_path)[0].masks) == 2


def test_options_reach_the_reader(tmp_path: Path) -> None:
    ids = IDS.copy()
    ids[0, 12:15] = 1
    ids[7, :] = 255
    image(tmp_path / "a.jpg")
    mask(tmp_path / "a.png", ids)
    assert open_data(tmp_path)[0].meta["labels"] == [1, 2]
    assert open_data(tmp_path, kind="label")[0].meta["labels"] == [1, 1, 2]
    assert open_data(tmp_path, kind="binary", ignore=255)[0].meta["labels"] == [1]
    assert open_data(tmp_path, kind="instance")[0].meta["labels"] == [1, 2, 255]
    with pytest.raises(UnknownName, match="kind"):
        open_data(tmp_path, kin="label")


def test_equal_stems_keep_their_whole_names(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.webp", "b.jpg"):
        image(tmp_path / name)
    assert open_data(tmp_path).ids == ("a.jpg", "a.webp", "b")


def test_a_broken_file_fails_on_access_only(tmp_path: Path) -> None:
    beside(tmp_path)
    data = (tmp_path / "b.webp").read_bytes()
    (tmp_path / "b.webp").write_bytes(data[: len(data) // 2])
    mask(tmp_path / "c.png", IDS[:-1])
    found = open_data(tmp_path)
    assert len(found) == 3 and found[0].id == "a" and len(found.fingerprint) == 16
    with pytest.raises(InputError, match="b.webp"):
        found[1]
    with pytest.raises(InputError, match="16 x 11, its image 16 x 12"):
        found[2]


def test_wrong_paths(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        open_data(tmp_path / "none")
    with pytest.raises(InputError, match="no reader") as caught:
        open_data(tmp_path)
    for reader in ("mask-folder", "coco", "sa1b"):
        assert reader in caught.value.hint
    with pytest.raises(InputError, match="no images found"):
        open_data(tmp_path, reader="mask-folder")
    image(tmp_path / "a.jpg")
    with pytest.raises(UnknownName, match="mask-folder"):
        open_data(tmp_path, reader="mask-foldr")


def numbered(root: Path, count: int) -> Dataset:
    for i in range(count):
        image(root / f"{i:02d}.png", shade=i)
    return open_data(root)


def test_limit_is_evenly_spaced(tmp_path: Path) -> None:
    data = numbered(tmp_path, 10)
    assert data.limit(3).ids == ("00", "03", "06")
    assert data.limit(10).ids == data.limit(99).ids == data.limit(None).ids == data.ids
    assert open_data(tmp_path, limit=5).ids == ("00", "02", "04", "06", "08")
    for bad in (0, -1):
        with pytest.raises(InputError, match="limit"):
            data.limit(bad)


def test_subset_slice_and_index(tmp_path: Path) -> None:
    data = numbered(tmp_path, 6)
    assert data.subset(["04", "01"]).ids == ("04", "01")
    assert data.subset(["04"])[0].id == "04"
    assert data[1:3].ids == ("01", "02")
    assert data[-1].id == "05"
    with pytest.raises(IndexError):
        data[6]
    with pytest.raises(InputError, match="no image '4'"):
        data.subset(["4"])


def test_fingerprint_follows_content_not_place(tmp_path: Path) -> None:
    first = tmp_path / "first"
    data = open_data(beside(first))
    shutil.copytree(first, tmp_path / "second")
    assert open_data(tmp_path / "second").fingerprint == data.fingerprint
    assert data.limit(2).fingerprint != data.fingerprint
    assert data.subset(data.ids).fingerprint == data.fingerprint
    mask(tmp_path / "second" / "b.png", IDS[::-1].copy())
    assert open_data(tmp_path / "second").fingerprint != data.fingerprint
    third = shutil.copytree(first, tmp_path / "third")
    for suffix in ("jpg", "png"):
        (third / f"a.{suffix}").rename(third / f"aa.{suffix}")
    assert open_data(third).ids[0] == "aa" and open_data(third).fingerprint != data.fingerprint


def test_demo_set() -> None:
    """At least six photographs of at most 384 pixels and 60 kB, 2 to 4 objects each, all named in the credits."""
    data = open_data()
    assert data.name == "demo" and data.fingerprint == open_data("demo").fingerprint
    assert 6 <= len(data) <= 10
    credits = (demo_root() / "README.md").read_text(encoding="utf-8")
    for scene in data:
        assert max(scene.size) <= 384 and 2 <= len(scene.masks) <= 4
        assert f"| {scene.id}.jpg |" in credits
        assert (demo_root() / f"{scene.id}.jpg").stat().st_size <= 60_000
        assert not (scene.masks.sum(0) > 1).any(), "objects of one id map cannot overlap"
        assert (scene.masks.float().mean((1, 2)) >= 0.01).all(), "an object below 1 % would never be prompted"


def test_demo_wins_over_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image(tmp_path / "demo" / "x.jpg")
    monkeypatch.chdir(tmp_path)
    assert "coffee" in open_data("demo").ids
    assert open_data("./demo").ids == ("x",)


def test_shared_root_follows_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDSAM_DATA", str(tmp_path))
    assert shared_root() == tmp_path
    beside(tmp_path / "eval" / "cvc_polyp")
    data = open_data("cvc_polyp")
    assert data.name == "cvc_polyp" and data[0].meta["labels"] == [1], "binary by its rule"
    monkeypatch.setenv("REDSAM_DATA", str(tmp_path / "none"))
    assert shared_root() is None
    with pytest.raises(InputError):
        open_data("cvc_polyp")


def test_every_reader_opens_from_the_registry() -> None:
    assert {"coco", "demo", "known-set", "mask-folder", "sa1b"} <= set(registry.names("reader"))
    for entry in registry.entries("reader"):
        assert entry.summary and entry.meta["expects"]
        again = registry.create("reader", entry.name)
        assert registry.spec_of(again)["name"] == entry.name
