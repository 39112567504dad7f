"""Mask files to objects: id maps HxW, stacks KxHxW bool, connected components."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from redsam.data.images import check_file, open_pil
from redsam.errors import InputError

Kind = Literal["auto", "instance", "binary", "label"]
# instance: each value but 0 is one object. binary: all that is not 0 is one object. label: values are classes, objects
# are their connected components. auto: a single value but 0 is "binary", more are "instance".

VOID = 255  # the ignore value of label maps (Pascal VOC, Cityscapes, ...)
SPECK = 0.0005  # components under this share of the image are dropped: noise of labelling, and thousands of them
_EIGHT = np.ones((3, 3), dtype=bool)

Ids = NDArray[np.int32]
Place = tuple[slice, slice]
Found = tuple[int, Place, NDArray[np.bool_]]


def read_mask(path: str | Path, size: tuple[int, int] | None = None) -> Ids:
    """HxW ids of a mask file (PNG and other images, NPY); 0 is background. size: (height, width) it must have.

    Palette images give their index, not their colour. Colour images give R + 256 G + 65536 B (the COCO panoptic code),
    or the value when the three agree; where alpha is 0 the id is 0. A JPEG is cut at 127: its values are not exact.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        ids = _read_npy(path)
        if ids.ndim != 2:
            raise InputError(f"{path}: expected a HxW array, got {ids.shape}.", hint="Give one id map.")
    else:
        ids = _ids_of_image(path)
    check_mask(ids.shape, size, path)
    return ids.astype(np.int32)


def read_stack(path: Path, size: tuple[int, int], *, kind: Kind, ignore: int | None) -> tuple[Tensor, list[int]]:
    """Objects of one mask file: bool KxHxW and the value each came from. An NPY may also hold KxHxW, one mask each."""
    if path.suffix.lower() == ".npy":
        array = _read_npy(path)
        if array.ndim == 3:
            check_mask(array.shape[1:], size, path)
            return torch.from_numpy(array != 0), list(range(1, len(array) + 1))
    return split(read_mask(path, size), kind=kind, ignore=ignore)


def check_mask(shape: tuple[int, ...], size: tuple[int, int] | None, where: str | Path) -> None:
    """Raise InputError unless a mask of this shape fits an image of (height, width)."""
    if size is not None and tuple(shape) != tuple(size):
        raise InputError(
            f"{where}: the mask is {shape[1]} x {shape[0]}, its image {size[1]} x {size[0]}.",
            hint="Resize the mask to the image (nearest neighbour).",
        )


def split(ids: Ids, *, kind: Kind = "auto", ignore: int | None = None) -> tuple[Tensor, list[int]]:
    """Objects of an id map: bool KxHxW and the value each came from, by value and then from the top.

    ignore: a value that is no object. None means 255 for label maps, and for "auto" maps of several values when 255
    stands alone (254 is not used): that is a void border, not the 255th object.
    """
    values, compact = _compacted(ids)
    if ignore is None and (kind == "label" or (kind == "auto" and len(values) > 1 and VOID - 1 not in values)):
        ignore = VOID
    kept = [(i, v) for i, v in enumerate(values, 1) if v != ignore]
    if kind == "binary":
        table = np.zeros(len(values) + 1, dtype=bool)
        table[[i for i, _ in kept]] = True
        return torch.from_numpy(table[compact][None][: len(kept)]), [1][: len(kept)]
    places = ndimage.find_objects(compact, max_label=len(values))
    found = [(v, places[i - 1], compact[places[i - 1]] == i) for i, v in kept]
    if kind == "label":
        found = [part for whole in found for part in _components(*whole, floor=SPECK * ids.size)]
    stack = np.zeros((len(found), *ids.shape), dtype=bool)  # NumPy's zeros cost nothing until written
    for mask, (_, place, crop) in zip(stack, found, strict=True):
        mask[place] = crop
    return torch.from_numpy(stack), [v for v, _, _ in found]


def _compacted(ids: Ids) -> tuple[list[int], NDArray[np.int32]]:
    """Values but 0 in order, and the map with value i of them written as i + 1."""
    if ids.size and ids.min() >= 0 and ids.max() < 65536:  # counting is many times faster than sorting
        present = np.bincount(ids.ravel()) > 0
        present[0] = False
        table = np.where(present, np.cumsum(present), 0).astype(np.int32)
        return [int(v) for v in np.flatnonzero(present)], table[ids]
    raw, inverse = np.unique(ids, return_inverse=True)
    keep = raw != 0
    table = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return [int(v) for v in raw[keep]], table[inverse.reshape(ids.shape)]


def _components(value: int, place: Place, crop: NDArray[np.bool_], *, floor: float) -> list[Found]:
    """8-connected components of one class, those of at least `floor` pixels, each in its own window of the image."""
    numbered, count = ndimage.label(crop, structure=_EIGHT)
    sizes = np.bincount(numbered.ravel(), minlength=count + 1)
    parts: list[Found] = []
    for number, inner in enumerate(ndimage.find_objects(numbered), 1):
        if sizes[number] >= floor:
            rows, columns = (slice(o.start + i.start, o.start + i.stop) for o, i in zip(place, inner, strict=True))
            parts.append((value, (rows, columns), numbered[inner] == number))
    return parts


def _read_npy(path: Path) -> NDArray[Any]:
    check_file(path)
    try:
        array = np.load(path, allow_pickle=False)  # a pickle inside an array file is code
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not a plain NumPy array file.", hint="Write it with numpy.save.") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "bui" or array.ndim not in (2, 3):
        raise InputError(f"{path}: a mask array is HxW or KxHxW of bool or integers.")
    return array


def _ids_of_image(path: Path) -> NDArray[Any]:
    image = open_pil(path)
    if path.suffix.lower() in (".jpg", ".jpeg"):
        return np.asarray(image.convert("L")) > 127
    if image.mode in ("1", "L", "P", "I") or image.mode.startswith("I;16"):
        return np.asarray(image)
    if image.mode in ("LA", "PA"):
        pair = np.asarray(image)
        return np.where(pair[..., 1] > 0, pair[..., 0], 0)
    if image.mode not in ("RGB", "RGBA"):
        raise InputError(f"{path}: a mask in colour mode '{image.mode}'.", hint="Save it as an 8-bit grey PNG of ids.")
    rgb = np.asarray(image).astype(np.int32)
    grey = bool((rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 1] == rgb[..., 2]).all())
    ids = rgb[..., 0] if grey else rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
    return ids * (rgb[..., 3] > 0) if image.mode == "RGBA" else ids
