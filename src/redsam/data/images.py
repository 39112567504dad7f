"""The one image reader and writer: a file becomes float32 3xHxW RGB in [0, 1] on the 8-bit lattice (v is v / 255).

Whatever a file holds is brought to what a viewer shows: EXIF rotation applied; palettes looked up; alpha composited on
white; CMYK and YCbCr by Pillow's formulas (ICC profiles are not applied); 16-bit grey scaled by 65535 and rounded to
the nearest of 256 levels (16-bit colour PNG keeps its high byte, as Pillow reads it); the first frame of an animation.
Everything that cannot be read is an InputError of one line, never a decoder's traceback.
"""

from __future__ import annotations

import contextlib
import errno
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from redsam.errors import InputError
from redsam.types import from_uint8

# Pillow warns above this many pixels; here it is an error, because a mask stack of such an image fills any memory.
MAX_PIXELS = 89_478_485
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")
_FORMATS_HINT = "Give a JPEG, PNG, WebP, BMP or TIFF file."


def open_pil(path: Path) -> Image.Image:
    """The decoded first frame with EXIF rotation applied, in the file's own mode. Raises InputError."""
    check_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path)
        if image.width * image.height > MAX_PIXELS:  # also when somebody lifted Pillow's own limit
            raise Image.DecompressionBombError
        image.load()
        return ImageOps.exif_transpose(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(
            f"{path}: more than {MAX_PIXELS // 10**6} million pixels.", hint="Scale the image down first."
        ) from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: not an image that can be read.", hint=_FORMATS_HINT) from error
    except PermissionError as error:
        raise InputError(f"{path}: no permission to read it.", hint=f"Try: chmod +r {path}") from error
    except Exception as error:  # decoders fed with broken bytes raise nearly anything; all of it is bad input
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{path}: broken or truncated image ({reason}).", hint="Copy or download the file again."
        ) from error


def check_file(path: Path) -> None:
    """Raise InputError unless `path` is a file with something in it."""
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder, not a file.", hint="Give the path of one file.")
        if not path.exists():
            raise InputError(f"{path}: there is no such file.", hint="Check the path.")
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty (0 bytes).", hint="Copy or download the file again.")
    except (OSError, ValueError) as error:  # no permission on the folder, a name too long, a NUL in it
        raise InputError(f"{path!s:.200}: cannot be opened ({error.__class__.__name__}).") from error


def read_image(path: str | Path) -> Tensor:
    """float32 3xHxW RGB in [0, 1] on the 8-bit lattice. Raises InputError."""
    path = Path(path)
    image = open_pil(path)
    if min(image.size) < 2:
        raise InputError(
            f"{path}: an image of {image.width} x {image.height} pixels is too small to segment.",
            hint="Give an image of at least 2 x 2 pixels.",
        )
    pixels = _rgb8(image, path)
    return from_uint8(torch.from_numpy(pixels).permute(2, 0, 1).contiguous())


def _rgb8(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    """HxWx3 uint8 of any Pillow mode."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        grey = _grey8(np.asarray(image), path)
        return np.repeat(grey[..., None], 3, axis=2)
    try:
        if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
            rgba = image.convert("RGBA")
            if rgba.getchannel("A").getextrema() != (255, 255):
                rgba = Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba)
            image = rgba
        return np.array(image.convert("RGB"), dtype=np.uint8)  # a copy: the tensor must own writable memory
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: colour mode '{image.mode}' cannot be read.", hint="Save it as RGB.") from error


def _grey8(values: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    """HxW uint8 of deep grey: integers have their white at 65535, floats at 1."""
    white = 1.0 if values.dtype.kind == "f" else 65535.0
    wide = values.astype(np.float64)
    if not (wide.min() >= 0 and wide.max() <= white):  # also catches NaN
        raise InputError(
            f"{path}: {values.dtype} grey values span {wide.min():g} to {wide.max():g}, white is taken as {white:g}.",
            hint="Save it as 8-bit or 16-bit grey.",
        )
    return np.rint(wide / white * 255).astype(np.uint8)


def write_png(path: str | Path, image: Tensor) -> None:
    """Write uint8 3xHxW (or a grey HxW) as PNG, losslessly; the file appears whole or not at all.

    Raises InputError when the folder is missing or read-only or the disk is full.
    """
    path = Path(path)
    if image.dtype != torch.uint8 or image.ndim < 2 or tuple(image.shape[:-2]) not in ((), (3,)):
        raise InputError(f"{path}: a PNG is written from uint8 3xHxW, got {image.dtype} {tuple(image.shape)}.")
    last = image if image.ndim == 2 else image.permute(1, 2, 0)
    pixels = last.detach().cpu().contiguous().numpy()
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        Image.fromarray(pixels).save(part, format="PNG", compress_level=4)
        os.replace(part, path)
    except OSError as error:
        _discard(part)
        raise InputError(f"{path}: cannot be written ({_why(error)}).", hint="Give another --out folder.") from error


def _discard(part: Path) -> None:
    with contextlib.suppress(OSError):  # there may be no folder to hold it
        part.unlink(missing_ok=True)


def _why(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return "the disk is full"
    return (error.strerror or str(error)).lower()
