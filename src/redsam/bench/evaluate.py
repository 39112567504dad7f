"""From predictions to records: the numbers of one image, and of each of its prompts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from redsam.bench import rle
from redsam.bench.spec import SCHEMA, Cell, JsonDict
from redsam.metrics import area, boundary, boundary_width, iou
from redsam.models.values import Masks
from redsam.prompts import Prompt
from redsam.types import Sample

# Fields that differ between two runs of the same cell on the same machine; everything else must not.
TIMING = ("seconds", "peak_mb", "batch")


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """A model's masks for the prompts of one image, small enough to keep: run-length codes, predicted IoU, and the
    overlap with ground truth (None without annotation)."""

    size: tuple[int, int]
    codes: tuple[rle.Rle, ...]
    predicted: tuple[float, ...]
    iou: tuple[float, ...] | None
    boundary_iou: tuple[float, ...] | None

    def masks(self) -> Tensor:
        """bool PxHxW on the CPU."""
        return rle.decode(self.codes, size=self.size)

    def only(self, index: int) -> Answer:
        """The answer to one of the prompts."""
        keep = slice(index, index + 1)
        return replace(
            self,
            codes=self.codes[keep],
            predicted=self.predicted[keep],
            iou=None if self.iou is None else self.iou[keep],
            boundary_iou=None if self.boundary_iou is None else self.boundary_iou[keep],
        )


def joined(parts: Sequence[Answer]) -> Answer:
    """Answers to prompts of one image, asked apart, as one."""
    truth = all(a.iou is not None for a in parts)
    return Answer(
        size=parts[0].size,
        codes=tuple(c for a in parts for c in a.codes),
        predicted=tuple(v for a in parts for v in a.predicted),
        iou=tuple(v for a in parts for v in a.iou or ()) if truth else None,
        boundary_iou=tuple(v for a in parts for v in a.boundary_iou or ()) if truth else None,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Moved:
    """Where pixels moved, what they are compared with moved, too: masks bool KxHxW of the K prompts that stayed.

    kept: their indices among the sample's prompts. gone: index of every other prompt, and why. clean: the clean
    prediction. truth: ground truth, None without annotation.
    """

    kept: tuple[int, ...]
    gone: Mapping[int, str]
    clean: Tensor
    truth: Tensor | None


def answer(sample: Sample, found: Masks) -> Answer:
    """Measure one prediction of a sample's prompts against its ground truth."""
    masks = found.masks.cpu()
    overlap = bands = None
    if sample.masks is not None:
        width = boundary_width(*sample.size)
        overlap = _numbers(iou(masks, sample.masks))
        bands = _numbers(iou(boundary(masks, width=width), boundary(sample.masks, width=width)))
    return Answer(
        size=sample.size,
        codes=tuple(rle.encode(masks)),
        predicted=_numbers(found.iou),
        iou=overlap,
        boundary_iou=bands,
    )


def recorded(record: JsonDict) -> Answer:
    """The answer that the record of a clean cell was made of, number for number."""
    prompts = record["prompts"]

    def column(name: str) -> tuple[float, ...] | None:
        values = tuple(p[name] for p in prompts)
        return None if None in values else values

    return Answer(
        size=(record["height"], record["width"]),
        codes=tuple(p["rle_clean"] for p in prompts),
        predicted=tuple(math.nan if p["pred_iou_clean"] is None else p["pred_iou_clean"] for p in prompts),
        iou=column("iou_clean_gt"),
        boundary_iou=column("biou_clean_gt"),
    )


def nothing(sample: Sample) -> Answer:
    """The answer to no prompts."""
    none = None if sample.masks is None else ()
    return Answer(size=sample.size, codes=(), predicted=(), iou=none, boundary_iou=none)


def record(
    cell: Cell,
    sample: Sample,
    clean: Answer,
    adv: Answer | None = None,
    *,
    tested: Sequence[Prompt] | None = None,
    moved: Moved | None = None,
    extra: JsonDict | None = None,
) -> JsonDict:
    """The record of a measured image. adv: None in a clean cell. tested: the prompts it was asked with, where they may
    differ from the sample's. moved: where a corruption moved pixels; adv and tested are of the prompts that stayed.
    extra: what is known of the adversarial image (see shots.py), and where files lie."""
    out = blank(cell, sample.id, "ok", None)
    out["height"], out["width"] = sample.size
    out |= {"linf": 0.0, "l2": 0.0, "l0": 0, "ssim": 1.0}
    out["prompts"] = _prompts(sample, clean, adv, sample.prompts if tested is None else tested, moved)
    if moved is not None and not moved.kept:
        out |= {"status": "skipped", "reason": "every prompt left the image"}
    return out | (extra or {})


def blank(cell: Cell, sample: str, status: str, reason: str | None) -> JsonDict:
    """A record with every field and no number: what a failed or skipped image leaves."""
    empty: JsonDict = {"schema": SCHEMA, "cell": cell.id, "sample": sample, "status": status, "reason": reason}
    names = ("height", "width", "linf", "l2", "l0", "psnr", "ssim", "seconds", "peak_mb", "batch", "steps")
    return empty | dict.fromkeys((*names, "loss_first", "loss_last", "flag", "image", "clean_image")) | {"prompts": []}


def _prompts(
    sample: Sample, clean: Answer, adv: Answer | None, tested: Sequence[Prompt], moved: Moved | None
) -> list[JsonDict]:
    """One entry for each prompt. Without an adversarial answer the clean one stands for it. `geometry` is what the
    attacked model was asked with; where that is not what the clean one was, `geometry_given` is.

    Where pixels moved, `rle_clean` and `rle_gt` lie on the clean image, `rle_clean_moved` and `rle_gt_moved` on the
    other one; a prompt that left the image says so in `gone` and has no number there.
    """
    places: list[int | None] = list(range(len(sample.prompts)))
    if moved is not None:
        places = [moved.kept.index(i) if i in moved.kept else None for i in places]
    same = (1.0,) * len(sample.prompts)
    overlap, bands = same, same
    if adv is not None:
        before, after = clean.masks() if moved is None else moved.clean, adv.masks()
        width = boundary_width(*sample.size)
        overlap = _numbers(iou(before, after))
        bands = _numbers(iou(boundary(before, width=width), boundary(after, width=width)))
    last = clean if adv is None else adv
    truth = sample.masks
    areas = area(truth).tolist() if truth is not None else [None] * len(sample.prompts)
    truth_codes: Sequence[Any] = rle.encode(truth) if truth is not None else areas
    out: list[JsonDict] = []
    for i, (prompt, k) in enumerate(zip(sample.prompts, places, strict=True)):
        out.append(
            {
                "prompt": i,
                "kind": prompt.kind,
                "object": sample.objects[i] if sample.objects else None,
                "area": areas[i],
                "geometry": None if k is None else tested[k].to_dict(),
                "iou_clean_gt": _at(clean.iou, i),
                "iou_adv_gt": _at(last.iou, k),
                "iou_adv_clean": _at(overlap, k),
                "biou_clean_gt": _at(clean.boundary_iou, i),
                "biou_adv_gt": _at(last.boundary_iou, k),
                "biou_adv_clean": _at(bands, k),
                "pred_iou_clean": finite(clean.predicted[i]),
                "pred_iou_adv": None if k is None else finite(last.predicted[k]),
                "rle_gt": truth_codes[i],
                "rle_clean": clean.codes[i],
                "rle_adv": None if adv is None or k is None else adv.codes[k],
            }
        )
        if k is None or tested[k] is not prompt:
            out[-1]["geometry_given"] = prompt.to_dict()
        if moved is not None:
            out[-1] |= _moved(moved, i, k)
    return out


def _moved(moved: Moved, i: int, k: int | None) -> JsonDict:
    """What else is said of prompt i, the k-th of those that stayed."""
    if k is None:
        return {"gone": moved.gone[i]}
    truth = None if moved.truth is None else rle.encode(moved.truth[k : k + 1])[0]
    return {"rle_clean_moved": rle.encode(moved.clean[k : k + 1])[0], "rle_gt_moved": truth}


def finite(value: float | Tensor) -> float | None:
    """A float for JSON; None where it is not finite (the PSNR of an unchanged image)."""
    number = float(value)
    return number if math.isfinite(number) else None


def comparable(record: JsonDict) -> JsonDict:
    """A record without what differs from run to run."""
    return {key: value for key, value in record.items() if key not in TIMING}


def _numbers(values: Tensor) -> tuple[float, ...]:
    return tuple(values.detach().to("cpu", torch.float64).tolist())


def _at(values: tuple[float, ...] | None, i: int | None) -> float | None:
    return None if values is None or i is None else values[i]
