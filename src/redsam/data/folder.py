"""Reader `mask-folder`: images with mask files beside them, in a sibling folder, or none at all."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from redsam.data.base import Dataset, Item, Reader
from redsam.data.images import IMAGE_SUFFIXES, read_image
from redsam.data.masks import Kind, read_stack
from redsam.errors import InputError
from redsam.registry import register
from redsam.types import Scene

MASK_FOLDERS = ("masks", "mask", "labels", "annotations", "SegmentationObject", "SegmentationClass")
IMAGE_FOLDERS = ("images", "image", "imgs", "JPEGImages")
_EXPECTED = (
    "NAME.jpg with NAME.png or NAME_mask.png or NAME.npy beside it, or images/NAME.* with masks/NAME.png, "
    "or masks/NAME/*.png of one object each"
)


@register("reader", "mask-folder", rank=90, expects=f"a folder of images ({_EXPECTED})")
@dataclass(frozen=True, kw_only=True)
class MaskFolder(Reader):
    """A folder of images with mask files (PNG, NPY): instance ids, binary, or a label map with an ignore value.

    kind: how values are read, see `redsam.data.masks.split`. ignore: a value that is no object (None: 255 in label
    maps). Images without a mask file give scenes without masks; for stability against the clean prediction.
    """

    kind: Kind = "auto"
    ignore: int | None = None

    @classmethod
    def accepts(cls, path: Path) -> bool:
        return path.is_dir() and bool(find_images(path)[0])

    def open(self, path: Path) -> Dataset:
        pairs = pair(path)
        return Dataset(name=path.resolve().name, items=items_of(pairs), load=self.scene)

    def scene(self, item: Item) -> Scene:
        """Read one image and its mask files."""
        image = read_image(item.files[0])
        height, width = int(image.shape[1]), int(image.shape[2])
        meta: dict[str, Any] = {"file": item.files[0].name}
        if len(item.files) == 1:
            return Scene(id=item.id, image=image, masks=torch.zeros(0, height, width, dtype=torch.bool), meta=meta)
        stacks, labels = [], []
        single: Kind = "binary" if len(item.files) > 2 else self.kind  # a folder of masks holds one object per file
        for file in item.files[1:]:
            stack, values = read_stack(file, (height, width), kind=single, ignore=self.ignore)
            stacks.append(stack)
            labels += values
        masks = stacks[0] if len(stacks) == 1 else torch.cat(stacks)
        return Scene(id=item.id, image=image, masks=masks, meta=meta | {"labels": labels})


def find_images(path: Path) -> tuple[list[Path], Path]:
    """Image files of a folder (or of its images/ folder), masks beside them left out; and the folder they are in."""
    for folder in (path, *(path / name for name in IMAGE_FOLDERS)):
        files = sorted(f for f in _files(folder) if f.suffix.lower() in IMAGE_SUFFIXES)
        others = {f.stem for f in files if f.suffix.lower() != ".png"}
        stems = others | {f.stem for f in files}
        files = [f for f in files if not _is_mask(f, others, stems)]
        if files:
            return files, folder
    return [], path


def _is_mask(file: Path, others: set[str], stems: set[str]) -> bool:
    """A PNG that belongs to another image: NAME.png beside NAME.jpg, NAME_mask.png beside NAME.*."""
    if file.suffix.lower() == ".png" and file.stem in others:
        return True
    return file.stem.endswith("_mask") and file.stem.removesuffix("_mask") in stems


def _files(folder: Path) -> list[Path]:
    try:
        return [f for f in folder.iterdir() if f.is_file() and not f.name.startswith(".")] if folder.is_dir() else []
    except OSError as error:
        raise InputError(f"{folder}: the folder cannot be read.", hint=f"Try: chmod +rx {folder}") from error


def pair(path: Path) -> list[tuple[Path, ...]]:
    """(image, mask files...) of every image under `path`, sorted by name. Raises InputError when there is no image."""
    images, folder = find_images(path)
    if not images:
        raise InputError(f"{path}: no images found.", hint=f"Expected {_EXPECTED}.")
    shelves = [folder]
    for base in (folder, folder.parent) if folder.name in IMAGE_FOLDERS else (folder,):
        shelves += [base / name for name in MASK_FOLDERS if (base / name).is_dir()]
    listing = {shelf: {f.name for f in _files(shelf)} for shelf in shelves}
    return [(image, *_masks_of(image, shelves, listing)) for image in images]


def _masks_of(image: Path, shelves: list[Path], listing: dict[Path, set[str]]) -> tuple[Path, ...]:
    for shelf in shelves:
        names = [f"{image.stem}.png", f"{image.stem}_mask.png", f"{image.stem}.npy", f"{image.stem}_mask.npy"]
        if shelf != image.parent:  # in a folder of their own masks may have the image's name and any format
            names += [f"{image.stem}{suffix}" for suffix in IMAGE_SUFFIXES]
        for name in names:
            if name in listing[shelf] and shelf / name != image:
                return (shelf / name,)
        if shelf != image.parent and (shelf / image.stem).is_dir():
            return tuple(sorted(f for f in _files(shelf / image.stem) if f.suffix.lower() in (".png", ".npy")))
    return ()


def items_of(pairs: list[tuple[Path, ...]]) -> list[Item]:
    """Items named by the image's stem, or by its whole name where two stems are equal."""
    count = Counter(files[0].stem for files in pairs)
    return [Item(id=f[0].stem if count[f[0].stem] == 1 else f[0].name, files=f) for f in pairs]
