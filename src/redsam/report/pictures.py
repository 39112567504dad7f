"""Pixels for the page: COCO RLE to masks, thumbnails, mask overlays and the amplified difference, all as data URIs.

Images are uint8 HxWx3 RGB, masks bool HxW, both in original pixels; only the thumbnails are smaller.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

THUMB = 480  # longest side of a thumbnail
MASK_RGB = (255, 0, 122)  # what the model selects; nature photographs hardly ever hold this colour
Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def decode_rle(rle: Mapping[str, Any]) -> Mask:
    """COCO run-length code {"size": [H, W], "counts": list | str} to bool HxW. Raises ValueError when it does not fit.

    Runs alternate 0, 1, 0, ... down the columns. A string holds them in 6-bit characters (48 + 5 bits, bit 6 says
    more follow), from the third run on as the difference to the run two before (COCO API, maskApi.c).
    """
    height, width = (int(v) for v in rle["size"])
    counts = rle["counts"]
    runs = [int(c) for c in counts] if isinstance(counts, list) else _unpack(str(counts))
    if sum(runs) != height * width or min(runs, default=0) < 0:
        raise ValueError(f"run lengths add up to {sum(runs)}, the mask has {height * width} pixels")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _unpack(text: str) -> list[int]:
    runs: list[int] = []
    value = shift = 0
    for char in text:
        code = ord(char) - 48
        value |= (code & 0x1F) << shift
        shift += 5
        if not code & 0x20:
            if code & 0x10:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def read_rgb(path: Path) -> Pixels:
    """An image this library wrote (8-bit PNG) as uint8 HxWx3. OSError when it is missing or broken."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def photo_uri(pixels: Pixels, *, side: int = THUMB, quality: int = 84) -> str:
    """A thumbnail as WebP; never larger than the original."""
    return _uri(_shrink(Image.fromarray(pixels), side), lossless=False, quality=quality)


def mask_uri(mask: Mask, *, side: int = THUMB, outline: bool = False) -> str:
    """A transparent overlay: filled with an edge (a prediction), or a white line on a dark one (the ground truth)."""
    inside = _smooth(mask, side)
    edge = inside & ~_eroded(inside, 3)
    rgba = np.zeros((*inside.shape, 4), dtype=np.uint8)
    if outline:
        rgba[_grown(inside, 3) & ~_eroded(inside, 5)] = (0, 0, 0, 150)
        rgba[edge] = (255, 255, 255, 255)
    else:
        rgba[inside] = (*MASK_RGB, 105)
        rgba[edge] = (*MASK_RGB, 255)
    return _uri(Image.fromarray(rgba), lossless=True, quality=80)


def edge_uri(mask: Mask, *, side: int = THUMB) -> str:
    """A transparent overlay for small pictures of weather: the mask's edge alone on a dark line, so that what lies
    under it stays to be seen."""
    inside = _smooth(mask, side)
    rgba = np.zeros((*inside.shape, 4), dtype=np.uint8)
    rgba[_grown(inside, 3) & ~_eroded(inside, 7)] = (0, 0, 0, 140)
    rgba[inside & ~_eroded(inside, 5)] = (*MASK_RGB, 255)
    return _uri(Image.fromarray(rgba), lossless=True, quality=80)


def amplified(clean: Pixels, adv: Pixels) -> tuple[Pixels, int]:
    """Mid grey plus factor times (adv - clean), and the factor: the largest whole number that clips nothing."""
    diff = adv.astype(np.int16) - clean.astype(np.int16)
    factor = max(1, 127 // max(1, int(np.abs(diff).max(initial=0))))
    return np.clip(128 + diff * factor, 0, 255).astype(np.uint8), factor


def _shrink(image: Image.Image, side: int) -> Image.Image:
    scale = min(1.0, side / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS) if size != image.size else image


def _smooth(mask: Mask, side: int) -> Mask:
    """The mask with its longest side at `side`, larger too: a staircase of pixels would look like the model's doing."""
    scale = side / max(mask.shape)
    size = (max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale)))
    image = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(max(0.0, scale - 0.5)))) > 127


def _eroded(mask: Mask, size: int) -> Mask:
    framed = np.pad(mask, size)  # a mask that touches the border gets its edge drawn there too
    out = np.asarray(Image.fromarray(framed.astype(np.uint8) * 255).filter(ImageFilter.MinFilter(size))) > 127
    return out[size:-size, size:-size]


def _grown(mask: Mask, size: int) -> Mask:
    return np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(size))) > 127


def _uri(image: Image.Image, *, lossless: bool, quality: int) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=lossless, quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
