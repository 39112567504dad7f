"""Reader `known-set`: public sets whose mask values have a settled meaning, by the name of their folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from redsam.data.base import Dataset, Item, Reader
from redsam.data.folder import MaskFolder, items_of, pair
from redsam.data.images import check_file, read_image
from redsam.data.masks import Kind, check_mask, split
from redsam.errors import InputError
from redsam.registry import register
from redsam.types import Scene

# Names of regions that a set's own files do not name, one JSON a set: {image: {mask value: [name, pixels]}}.
NAMES = Path(__file__).parent / "names"

VOC = "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant "
VOC += "sheep sofa train tvmonitor"
CITYSCAPES = "road sidewalk building wall fence pole,traffic light,traffic sign,vegetation terrain sky person rider "
CITYSCAPES += "car truck bus train motorcycle bicycle"
CCP = "accessories bag belt blazer blouse bodysuit boots bra bracelet cape cardigan clogs coat dress earrings flats "
CCP += (
    "glasses gloves hair hat heels hoodie intimate jacket jeans jumper leggings loafers necklace panties pants pumps "
)
CCP += "purse ring romper sandals scarf shirt shoes shorts skin skirt sneakers socks stockings suit sunglasses sweater "
CCP += "sweatshirt swimwear t-shirt tie tights top vest wallet watch wedges"
CAMVID = "sky building pole road pavement tree sign fence car pedestrian bicyclist"


def _condition(stem: str) -> dict[str, Any]:
    word = stem.split("__")[0]
    return {"condition": "clear" if word == "normal" else word}


def _mval_class(stem: str) -> dict[str, Any]:
    return {"classes": [stem.split("_")[0].rstrip("0123456789")]}


def _no_meta(stem: str) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """kind and ignore: as in `redsam.data.masks.split` (objects of a label map are its connected components).
    classes: names of values 1, 2, .... meta: what a file name says. finest: of NAME_0, NAME_1, ... the last.
    named: whether names come from the file of the set in `NAMES`."""

    kind: Kind
    ignore: int | None = None
    classes: tuple[str, ...] = ()
    meta: Callable[[str], dict[str, Any]] = _no_meta
    finest: bool = False
    named: bool = False


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for part in text.split(",") for name in ([part] if "traffic" in part else part.split()))


RULES: dict[str, Rule] = {
    # measuring
    "bsds_test": Rule(kind="instance"),  # regions of the median annotator; NAME_all.npz holds every annotator
    # Segment index: things and stuff. The set came without names. They were given by eye, from the photographs, for
    # this project: regions of at least 3 % of the image whose name was plain (372 of 456), in COCO's words.
    "coco_panoptic_val": Rule(kind="instance", named=True),
    "camvid720": Rule(kind="label"),  # class index within one image; 0 void
    "acdc_weather": Rule(kind="label", classes=_names(CITYSCAPES), meta=_condition),  # train id + 1; 0 ignore
    "lowcontrast": Rule(kind="binary", ignore=255),
    "cvc_polyp": Rule(kind="binary"),
    "radiate_fog_nomask": Rule(kind="binary"),  # no masks
    "rainhaze_nomask": Rule(kind="binary"),  # no masks
    # training
    "voc": Rule(kind="label", ignore=255, classes=_names(VOC)),
    "ecssd": Rule(kind="binary"),
    "ccp": Rule(kind="label", classes=_names(CCP)),  # clothing parts
    "bsds": Rule(kind="instance", finest=True),
    "coco_mval": Rule(kind="binary", meta=_mval_class),
    "coco_panoptic": Rule(kind="instance"),
    "camvid": Rule(kind="label", classes=_names(CAMVID)),
}


@register("reader", "known-set", rank=10, expects=f"a folder named {', '.join(RULES)}")
@dataclass(frozen=True, kw_only=True)
class KnownSet(Reader):
    """A public set under its usual folder name; what its mask values mean is in the table `RULES`.

    annotator: for bsds_test, take this annotator's regions from NAME_all.npz instead of the median one's.
    """

    annotator: int | None = None

    @classmethod
    def accepts(cls, path: Path) -> bool:
        return path.is_dir() and path.resolve().name in RULES and MaskFolder.accepts(path)

    def open(self, path: Path) -> Dataset:
        name = path.resolve().name
        if name not in RULES:
            raise InputError(f"{path}: no known set is named '{name}'.", hint=f"Known: {', '.join(RULES)}.")
        rule = RULES[name]
        items = items_of(pair(path))
        if rule.finest:
            items = [_with_finest(item) for item in items if item.files[0].suffix != ".png"]
        if self.annotator is not None:
            items = [replace(i, files=(i.files[0], i.files[0].with_name(f"{i.files[0].stem}_all.npz"))) for i in items]
            return Dataset(name=f"{name}#{self.annotator}", items=items, load=self._annotated)
        folder = MaskFolder(kind=rule.kind, ignore=rule.ignore)

        def load(item: Item) -> Scene:
            scene = folder.scene(item)
            meta = dict(scene.meta) | rule.meta(item.files[0].stem)
            if rule.classes:
                meta["classes"] = [rule.classes[v - 1] if v <= len(rule.classes) else str(v) for v in meta["labels"]]
            if rule.named:
                meta["classes"] = given_names(name, item.id, scene.masks.flatten(1).sum(1).tolist(), meta["labels"])
            return replace(scene, meta=meta)

        return Dataset(name=name, items=items, load=load)

    def _annotated(self, item: Item) -> Scene:
        image = read_image(item.files[0])
        size = (int(image.shape[1]), int(image.shape[2]))
        check_file(item.files[1])
        try:
            with np.load(item.files[1], allow_pickle=False) as stored:
                maps = [stored[key] for key in sorted(stored.files)]
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{item.files[1]}: not a plain NumPy archive.") from error
        assert self.annotator is not None
        if not 0 <= self.annotator < len(maps):
            raise InputError(f"{item.id}: no annotator {self.annotator}.", hint=f"It has 0 to {len(maps) - 1}.")
        ids = maps[self.annotator].astype(np.int32)
        check_mask(ids.shape, size, item.files[1])
        masks, labels = split(ids, kind="instance", ignore=0)
        return Scene(id=item.id, image=image, masks=masks, meta={"labels": labels})


@cache
def _file_of(name: str) -> Mapping[str, Mapping[str, tuple[str, int]]]:
    """{image: {mask value: [name, pixels]}} of a set."""
    return dict(json.loads((NAMES / f"{name}.json").read_text(encoding="utf-8")))


def given_names(name: str, image: str, areas: Sequence[int], labels: Sequence[int]) -> list[str]:
    """The name of each region of an image, "" where none was given, or where the region has not the size of the one
    that was named: another copy of the set may number its regions otherwise."""
    given = _file_of(name).get(image, {})
    found = [given.get(str(label), ("", -1)) for label in labels]
    return [word if pixels == area else "" for (word, pixels), area in zip(found, areas, strict=True)]


def _with_finest(item: Item) -> Item:
    image = item.files[0]
    numbered = sorted(image.parent.glob(f"{image.stem}_[0-9].png"))
    return replace(item, files=(image, numbered[-1])) if numbered else item
