"""read_image against Pillow and NumPy on files written here; every bad file is one InputError line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from redsam.data import read_image, write_png
from redsam.data.images import MAX_PIXELS
from redsam.errors import InputError
from redsam.types import check_image, to_uint8


@pytest.fixture
def rgb() -> NDArray[np.uint8]:
    """20 x 30, smooth so that JPEG keeps it, with four different corners."""
    rows, columns = np.mgrid[0:20, 0:30]
    return np.stack([rows * 12, columns * 8, (rows + columns) * 4], axis=2).astype(np.uint8)


def as_array(path: Path) -> NDArray[np.uint8]:
    image = read_image(path)
    check_image(image)
    levels = to_uint8(image)
    assert torch.equal(image, levels.float() / 255), "not on the 8-bit lattice"
    array: NDArray[np.uint8] = levels.permute(1, 2, 0).numpy()
    return array


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm"])
def test_rgb_is_read_exactly(tmp_path: Path, rgb: NDArray[np.uint8], suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(rgb).save(path)
    np.testing.assert_array_equal(as_array(path), rgb)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_respected(tmp_path: Path, rgb: NDArray[np.uint8], orientation: int) -> None:
    """The stored pixels are turned by hand so that every orientation must read as the same upright picture."""
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](rgb)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    np.testing.assert_array_equal(as_array(path), rgb)


def test_cmyk_jpeg(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(rgb).convert("CMYK").save(path, quality=95)
    with Image.open(path) as again:
        assert again.mode == "CMYK"
        np.testing.assert_array_equal(as_array(path), np.asarray(again.convert("RGB")))
    assert np.abs(as_array(path).astype(int) - rgb).mean() < 6, "colours are off, perhaps inverted"


def test_sixteen_bit_grey(tmp_path: Path) -> None:
    deep = np.array([[0, 128, 129, 257], [32896, 65407, 65408, 65535]], dtype=np.uint16)
    path = tmp_path / "a.png"
    Image.fromarray(deep).save(path)
    expected = np.array([[0, 0, 1, 1], [128, 255, 255, 255]])
    expected[1, 1] = round(65407 / 257)
    for channel in range(3):
        np.testing.assert_array_equal(as_array(path)[..., channel], expected)


def test_float_grey(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(np.array([[0.0, 0.5], [0.25, 1.0]], dtype=np.float32)).save(path)
    np.testing.assert_array_equal(as_array(path)[..., 0], [[0, 128], [64, 255]])
    Image.fromarray(np.array([[0.0, 2.0], [np.nan, 1.0]], dtype=np.float32)).save(path)
    with pytest.raises(InputError, match="grey values"):
        read_image(path)


def test_palette_is_looked_up(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], dtype=np.uint8), "P")
    image.putpalette([10, 20, 30, 200, 0, 0, 0, 0, 250])
    image.save(tmp_path / "a.png")
    expected = [[[10, 20, 30], [200, 0, 0]], [[0, 0, 250], [200, 0, 0]]]
    np.testing.assert_array_equal(as_array(tmp_path / "a.png"), expected)
    image.save(tmp_path / "b.png", transparency=1)
    expected[0][1] = expected[1][1] = [255, 255, 255]
    np.testing.assert_array_equal(as_array(tmp_path / "b.png"), expected)


def test_alpha_is_composited_on_white(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    alpha = np.full(rgb.shape[:2], 255, np.uint8)
    Image.fromarray(np.dstack([rgb, alpha])).save(tmp_path / "opaque.png")
    np.testing.assert_array_equal(as_array(tmp_path / "opaque.png"), rgb)
    alpha[:10], alpha[15:] = 0, 128
    Image.fromarray(np.dstack([rgb, alpha])).save(tmp_path / "part.png")
    got = as_array(tmp_path / "part.png")
    assert (got[:10] == 255).all()
    np.testing.assert_array_equal(got[10:15], rgb[10:15])
    blend = rgb[15:] * (128 / 255) + 255 * (127 / 255)
    assert np.abs(got[15:] - blend).max() <= 1
    grey = np.dstack([rgb[..., 0], np.zeros_like(alpha)])
    Image.fromarray(grey, "LA").save(tmp_path / "la.png")
    assert (as_array(tmp_path / "la.png") == 255).all()


def test_grey_and_one_bit(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    Image.fromarray(rgb[..., 1]).save(tmp_path / "l.png")
    np.testing.assert_array_equal(as_array(tmp_path / "l.png"), np.repeat(rgb[..., 1:2], 3, axis=2))
    Image.fromarray(rgb[..., 1] > 99).save(tmp_path / "b.png")
    assert set(np.unique(as_array(tmp_path / "b.png"))) == {0, 255}


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(as_array(tmp_path / "a.gif")[0, 0], [255, 0, 0])


def _bad_files(folder: Path) -> dict[str, Path]:
    good = folder / "good.jpg"
    Image.effect_noise((64, 64), 50).convert("RGB").save(good)
    data = good.read_bytes()
    made: dict[str, bytes] = {
        "truncated.jpg": data[: len(data) // 2],
        "empty.png": b"",
        "text.png": b"hello, I am no picture\n",
    }
    Image.effect_noise((64, 64), 50).save(folder / "good.png")
    png = (folder / "good.png").read_bytes()
    made["cut.png"] = png[: len(png) // 2]
    made["flipped.png"] = png[:60] + bytes(255 - b for b in png[60:200]) + png[200:]
    for name, content in made.items():
        (folder / name).write_bytes(content)
    Image.new("RGB", (1, 1)).save(folder / "one.png")
    Image.new("RGB", (1, 50)).save(folder / "thin.png")
    (folder / "folder.png").mkdir()
    names = [*made, "one.png", "thin.png", "folder.png", "missing.png", "n" * 300 + ".png", "nul\0.png"]
    return {name: folder / name for name in names}


def test_every_bad_file_is_one_line(tmp_path: Path) -> None:
    for name, path in _bad_files(tmp_path).items():
        with pytest.raises(InputError) as caught:
            read_image(path)
        text = str(caught.value)
        assert "\n" not in text and "Traceback" not in text and len(text) < 500, text
        assert name[:20].rstrip("\0.png") in text, text


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("truncated.jpg", "truncated"),
        ("empty.png", "empty"),
        ("text.png", "not an image"),
        ("one.png", "1 x 1"),
        ("folder.png", "folder"),
        ("missing.png", "no such file"),
    ],
)
def test_the_line_says_what_is_wrong(tmp_path: Path, name: str, says: str) -> None:
    path = _bad_files(tmp_path)[name]
    with pytest.raises(InputError, match=says) as caught:
        read_image(path)
    assert caught.value.hint


def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    side = int(MAX_PIXELS**0.5) + 10
    Image.new("1", (side, side)).save(tmp_path / "bomb.png")
    for limit in (Image.MAX_IMAGE_PIXELS, None, 1000):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(InputError, match="million pixels"):
            read_image(tmp_path / "bomb.png")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(path)
    path.chmod(0)
    with pytest.raises(InputError, match="permission"):
        read_image(path)


def test_write_png_round_trip(tmp_path: Path) -> None:
    image = torch.randint(0, 256, (3, 17, 23), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    write_png(tmp_path / "a.png", image)
    assert torch.equal(to_uint8(read_image(tmp_path / "a.png")), image)
    write_png(tmp_path / "a.png", image[0])
    assert torch.equal(to_uint8(read_image(tmp_path / "a.png"))[2], image[0])
    assert [f.name for f in tmp_path.iterdir()] == ["a.png"], "a temporary file was left behind"


def test_write_png_refuses(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="uint8"):
        write_png(tmp_path / "a.png", torch.zeros(3, 4, 4))
    with pytest.raises(InputError, match="uint8"):
        write_png(tmp_path / "a.png", torch.zeros(4, 4, 4, dtype=torch.uint8))
    with pytest.raises(InputError, match="no such file"):
        write_png(tmp_path / "none" / "a.png", torch.zeros(3, 4, 4, dtype=torch.uint8))


def test_write_png_on_a_full_disk(tmp_path: Path) -> None:
    """Writing stops half-way: an InputError, and neither a torn nor a temporary file stays."""

    def fails(*args: object, **kwargs: object) -> None:
        Path(str(args[1])).write_bytes(b"torn")
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "save", fails)
        with pytest.raises(InputError, match="disk is full"):
            write_png(tmp_path / "a.png", torch.zeros(3, 4, 4, dtype=torch.uint8))
    assert list(tmp_path.iterdir()) == []
