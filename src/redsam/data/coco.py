"""Readers `coco` and `sa1b`: annotations in JSON with polygons or run lengths."""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from redsam.data.base import Dataset, Item, Reader
from redsam.data.folder import find_images
from redsam.data.images import check_file, read_image
from redsam.errors import InputError
from redsam.registry import register
from redsam.types import Scene

Annotation = Mapping[str, Any]


@register("reader", "coco", rank=30, expects="a COCO instances JSON, or a folder with one in it or in annotations/")
@dataclass(frozen=True, kw_only=True)
class Coco(Reader):
    """COCO instances: one JSON for all images, segmentation as polygons, run lengths or compressed run lengths.

    images: their folder; found by itself when it is the JSON's own folder, images/, or named like the JSON without
    `instances_` (val2017), there or one level up. crowd: also take `iscrowd` regions (they are groups, not objects).
    The JSON is parsed once, when the set is opened; what a scene needs is kept by image.
    """

    images: str | Path | None = None
    crowd: bool = False

    @classmethod
    def accepts(cls, path: Path) -> bool:
        return _find_json(path) is not None

    def open(self, path: Path) -> Dataset:
        source = _find_json(path)
        if source is None:
            raise InputError(f"{path}: no COCO JSON found.", hint="Give the JSON, such as instances_val2017.json.")
        table = _parse(source)
        if not isinstance(table.get("images"), list) or not isinstance(table.get("annotations"), list):
            found = ", ".join(sorted(table)[:6]) or "nothing"
            raise InputError(
                f"{source}: no COCO instances file (it has: {found}).", hint="Expected lists of images and annotations."
            )
        try:
            named = {c["id"]: str(c["name"]) for c in table.get("categories", [])}
            files = {image["id"]: str(image["file_name"]) for image in table["images"]}
            objects: dict[Any, list[Annotation]] = {key: [] for key in files}
            for a in table["annotations"]:
                if (self.crowd or not a.get("iscrowd")) and a["image_id"] in objects:
                    label = named.get(a.get("category_id"), str(a.get("category_id")))
                    objects[a["image_id"]].append({"segmentation": a["segmentation"], "class": label})
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{source}: broken COCO entry ({error!r}).",
                hint="Each annotation needs image_id and segmentation; panoptic files are not read.",
            ) from error
        folder = self._folder(source, list(files.values()))
        by_path = {folder / name: objects[key] for key, name in files.items()}
        items = [_item(name, folder / name, objects[key]) for key, name in files.items()]
        return Dataset(name=source.stem, items=items, load=lambda item: _scene(item, by_path[item.files[0]]))

    def _folder(self, source: Path, names: list[str]) -> Path:
        if self.images is not None:
            return Path(self.images)
        split = source.stem.removeprefix("instances_")
        tried = [base / name for base in (source.parent, source.parent.parent) for name in ("", "images", split)]
        tried += [base / "images" / split for base in (source.parent, source.parent.parent)]
        for folder in tried:
            if names and (folder / names[0]).exists():
                return folder
        for folder in tried:  # the first image may be the one that is missing
            if any((folder / name).exists() for name in names[:100]):
                return folder
        raise InputError(f"{source}: its images were not found.", hint="Put them into images/ beside the JSON.")


@register("reader", "sa1b", rank=20, expects="a folder of NAME.jpg with NAME.json beside it (SA-1B)")
@dataclass(frozen=True, kw_only=True)
class Sa1b(Reader):
    """SA-1B: one JSON with COCO run lengths beside each JPEG; masks in the order of the file.

    The whole set's masks overlap (parts and wholes). A JSON that is missing or broken is an error of its scene.
    """

    @classmethod
    def accepts(cls, path: Path) -> bool:
        if path.is_file():
            return path.suffix == ".json" and path.with_suffix(".jpg").exists()
        return any(image.with_suffix(".json").exists() for image in find_images(path)[0])

    def open(self, path: Path) -> Dataset:
        images = [path.with_suffix(".jpg")] if path.is_file() else find_images(path)[0]
        items = [Item(id=image.stem, files=(image, image.with_suffix(".json"))) for image in images]
        return Dataset(name=path.resolve().stem, items=sorted(items, key=lambda i: _natural(i.id)), load=self._scene)

    @staticmethod
    def _scene(item: Item) -> Scene:
        source = item.files[1]
        found = _parse(source).get("annotations")
        if not isinstance(found, list) or not all(isinstance(a, dict) and "segmentation" in a for a in found):
            raise InputError(
                f"{source}: no SA-1B annotations in it.",
                hint="Expected a list with segmentation in each. For mask files: reader='mask-folder'.",
            )
        return _scene(item, found)


def _natural(name: str) -> tuple[str, int, str]:
    """sa_2 before sa_10."""
    digits = name[len(name.rstrip("0123456789")) :]
    return name[: len(name) - len(digits)], int(digits or 0), name


def _find_json(path: Path) -> Path | None:
    """The one COCO JSON of a path: itself, or the only one in the folder or its annotations/."""
    if path.is_file():
        return path if path.suffix.lower() == ".json" else None
    for folder in (path, path / "annotations"):
        found = sorted(folder.glob("*.json"))
        found = found if len(found) == 1 else [f for f in found if f.name.startswith("instances")]
        if len(found) == 1 and _mentions_objects(found[0]):
            return found[0]
    return None


def _mentions_objects(path: Path) -> bool:
    """Whether the text has COCO's two keys, without parsing it: folders of masks also hold JSON of other kinds."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return text.find(b'"annotations"') >= 0 and text.find(b'"images"') >= 0
    except (OSError, ValueError):  # unreadable, or empty
        return False


def _parse(path: Path) -> dict[str, Any]:
    check_file(path)
    try:
        table = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise InputError(f"{path}: not a JSON file that can be read ({error}).") from error
    if not isinstance(table, dict):
        raise InputError(f"{path}: expected a JSON object, found a {type(table).__name__}.")
    return table


def _item(name: str, file: Path, objects: Sequence[Annotation]) -> Item:
    def note() -> str:
        return json.dumps(objects, sort_keys=True, default=str)

    flat = Path(name).with_suffix("").as_posix().strip("/").replace("/", "__")  # an id also names files
    return Item(id=flat, files=(file,), note=note)


def _scene(item: Item, objects: Sequence[Annotation]) -> Scene:
    image = read_image(item.files[0])
    height, width = int(image.shape[1]), int(image.shape[2])
    masks = np.zeros((len(objects), height, width), dtype=bool)  # NumPy's zeros cost nothing until written
    for mask, annotation in zip(masks, objects, strict=True):
        try:
            paint(mask, annotation["segmentation"])
        except InputError as error:
            raise InputError(f"{item.id}: {error.message}", hint=error.hint) from error
    meta: dict[str, Any] = {"file": item.files[0].name}
    if objects and "class" in objects[0]:
        meta["classes"] = [a["class"] for a in objects]
    return Scene(id=item.id, image=image, masks=torch.from_numpy(masks), meta=meta)


def paint(mask: NDArray[np.bool_], segmentation: Any) -> None:
    """Set a COCO segmentation in an empty HxW mask: polygons [[x, y, ...], ...], or {"size", "counts"}.

    The same pixels as pycocotools gives. Raises InputError when malformed or of another size.
    """
    height, width = mask.shape
    try:
        if isinstance(segmentation, list):
            _paint_polygons(mask, segmentation)
            return
        size = [int(v) for v in segmentation["size"]]
        if size != [height, width]:
            raise InputError(
                f"a mask is {size[1]} x {size[0]}, its image {width} x {height}.",
                hint="Use the images the annotations were made for.",
            )
        counts = segmentation["counts"]
        _paint_runs(mask, np.asarray(counts if isinstance(counts, list) else uncompressed(counts), dtype=np.int64))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = str(error) or type(error).__name__
        raise InputError(f"a segmentation cannot be decoded ({reason}).") from error


def _paint_polygons(mask: NDArray[np.bool_], polygons: list[Any]) -> None:
    from pycocotools import mask as coco_mask

    height, width = mask.shape
    solid = [[float(v) for v in p] for p in polygons if len(p) >= 6]  # fewer than three corners enclose nothing
    if solid:
        limit = 10 * max(height, width)
        if not all(abs(v) <= limit for p in solid for v in p):  # the C code crashes on NaN and allocates by length
            raise ValueError("a corner far outside the image or not a number")
        mask |= coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(solid, height, width))).astype(bool)


def _paint_runs(mask: NDArray[np.bool_], runs: NDArray[np.int64]) -> None:
    """Runs go down the columns, off and on in turn; only columns with something on are written."""
    height = mask.shape[0]
    ends = np.cumsum(runs)
    if len(runs) == 0 or runs.min() < 0 or ends[-1] != mask.size:
        raise ValueError("run lengths do not add up")
    on = np.flatnonzero(runs[1::2]) * 2 + 1
    if len(on):
        first, last = int(ends[on[0] - 1]) // height, int(ends[on[-1]] - 1) // height + 1
        edges = np.clip(ends - first * height, 0, (last - first) * height)
        lengths = np.diff(edges, prepend=0)
        flat = np.repeat(np.arange(len(runs)) % 2 == 1, lengths)
        mask[:, first:last] = flat.reshape(last - first, height).T


def uncompressed(counts: str | bytes) -> list[int]:
    """Run lengths of COCO's compressed string. Raises ValueError on a string that is none.

    5 bits a character (offset 48), bit 6 says that more follow, bit 5 of the last is the sign; from the fourth run on
    they are differences to the run before last.
    """
    runs: list[int] = []
    value = shift = 0
    for byte in counts.encode("ascii") if isinstance(counts, str) else counts:
        digit = byte - 48
        if not 0 <= digit < 64 or shift > 60:
            raise ValueError("a character that is no run length")
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            value -= (1 << shift) if digit & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("a run length without an end")
    return runs
