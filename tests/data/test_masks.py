"""Mask files to ids and ids to objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy import ndimage

from redsam.data import read_mask
from redsam.data.masks import SPECK, split
from redsam.errors import InputError

IDS = np.array([[0, 1, 1, 0], [2, 0, 7, 255]], dtype=np.uint8)


def test_grey_palette_and_npy_give_values(tmp_path: Path) -> None:
    Image.fromarray(IDS).save(tmp_path / "grey.png")
    palette = Image.fromarray(IDS, "P")
    palette.putpalette([v for i in range(256) for v in (255 - i, 7, i)])
    palette.save(tmp_path / "palette.png")
    np.save(tmp_path / "ids.npy", IDS.astype(np.int64))
    for name in ("grey.png", "palette.png", "ids.npy"):
        got = read_mask(tmp_path / name, (2, 4))
        np.testing.assert_array_equal(got, IDS)


def test_sixteen_bit_and_one_bit(tmp_path: Path) -> None:
    deep = IDS.astype(np.uint16) * 100
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "deep.png"), deep)
    Image.fromarray(IDS > 0).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "bits.png"), IDS > 0)


def test_colour_masks(tmp_path: Path) -> None:
    grey = np.repeat(IDS[..., None], 3, axis=2)
    Image.fromarray(grey).save(tmp_path / "same.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "same.png"), IDS)
    coded = np.zeros((2, 4, 3), np.uint8)
    coded[0, 0], coded[1, 3] = (5, 1, 0), (0, 0, 2)
    Image.fromarray(coded).save(tmp_path / "coded.png")
    ids = read_mask(tmp_path / "coded.png")
    assert ids[0, 0] == 5 + 256 and ids[1, 3] == 2 * 65536 and (ids > 0).sum() == 2
    alpha = np.dstack([np.full((2, 4, 3), 9, np.uint8), np.where(IDS == 1, 255, 0).astype(np.uint8)])
    Image.fromarray(alpha).save(tmp_path / "cut.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "cut.png"), (IDS == 1) * 9)


def test_a_jpeg_mask_is_cut_at_the_middle(tmp_path: Path) -> None:
    truth = np.zeros((32, 32), bool)
    truth[5:20, 8:30] = True
    Image.fromarray((truth * 255).astype(np.uint8)).save(tmp_path / "m.jpg", quality=60)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.jpg"), truth)


def test_bad_masks(tmp_path: Path) -> None:
    Image.fromarray(IDS).save(tmp_path / "m.png")
    with pytest.raises(InputError, match="4 x 2, its image 4 x 3") as caught:
        read_mask(tmp_path / "m.png", (3, 4))
    assert "nearest neighbour" in caught.value.hint
    np.save(tmp_path / "code.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "float.npy", np.zeros((2, 2)))
    (tmp_path / "torn.npy").write_bytes((tmp_path / "float.npy").read_bytes()[:90])
    Image.fromarray(IDS).convert("CMYK").save(tmp_path / "cmyk.tif")
    for name in ("code.npy", "float.npy", "torn.npy", "missing.npy", "missing.png", "cmyk.tif"):
        with pytest.raises(InputError):
            read_mask(tmp_path / name)


@pytest.mark.parametrize(
    ("kind", "ignore", "labels"),
    [
        ("instance", None, [1, 2, 7, 255]),
        ("instance", 255, [1, 2, 7]),
        ("binary", None, [1]),
        ("label", None, [1, 2, 7]),
        ("label", 7, [1, 2, 255]),
        ("auto", None, [1, 2, 7]),
        ("auto", 1, [2, 7, 255]),
    ],
)
def test_kinds(kind: str, ignore: int | None, labels: list[int]) -> None:
    masks, got = split(IDS.astype(np.int32), kind=kind, ignore=ignore)  # type: ignore[arg-type]
    assert got == labels
    union = np.isin(IDS, [1, 2, 7, 255]) if kind == "binary" else np.isin(IDS, labels)
    np.testing.assert_array_equal(masks.any(0).numpy(), union)


def test_auto_reads_a_lone_255_as_the_object_and_a_long_list_as_instances() -> None:
    masks, labels = split(np.array([[0, 255], [255, 0]], np.int32))
    assert labels == [255] and masks.sum() == 2
    _, labels = split(np.arange(256, dtype=np.int32).reshape(16, 16))
    assert labels == list(range(1, 256))


def test_nothing_and_only_ignored() -> None:
    for kind in ("auto", "instance", "binary", "label"):
        for ids in (np.zeros((3, 5), np.int32), np.full((3, 5), 255, np.int32)):
            masks, labels = split(ids, kind=kind, ignore=255)
            assert masks.shape == (0, 3, 5) and labels == []


def test_large_and_negative_ids() -> None:
    ids = np.array([[70000, 0, -3], [70000, 16777215, 0]], np.int32)
    masks, labels = split(ids, kind="instance")
    assert labels == [-3, 70000, 16777215]
    for mask, value in zip(masks, labels, strict=True):
        np.testing.assert_array_equal(mask.numpy(), ids == value)


@settings(max_examples=60, deadline=None)
@given(arrays(np.int32, (9, 11), elements=st.integers(0, 4)))
def test_components_against_plain_labelling(ids: np.ndarray) -> None:
    """Every component of every class, once; the windows change nothing. 9 x 11 is too small for SPECK to drop any."""
    assert SPECK * ids.size < 1
    masks, labels = split(ids, kind="label")
    expected = []
    for value in range(1, 5):
        numbered, count = ndimage.label(ids == value, structure=np.ones((3, 3)))
        expected += [(value, (numbered == part + 1).tobytes()) for part in range(count)]
    assert sorted((v, m.numpy().tobytes()) for v, m in zip(labels, masks, strict=True)) == sorted(expected)


def test_specks_of_a_label_map_are_dropped() -> None:
    ids = np.zeros((100, 100), np.int32)
    ids[10:40, 10:40] = 3
    ids[60, 60] = ids[80, 80:82] = 3
    assert split(ids, kind="label")[1] == [3]
    ids[70, 10:16] = 3  # 6 of 10,000 pixels
    assert split(ids, kind="label")[1] == [3, 3]
