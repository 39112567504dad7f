"""Which photographs to show: the worst, and beside them the typical one and the one that held, so that nobody takes
the worst for the rule. Picked from the cells the verdict rests on, by the drop in IoU; at most one case an image."""

from __future__ import annotations

import statistics
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redsam.report.pictures import Mask, amplified, decode_rle, mask_uri, photo_uri, read_rgb
from redsam.report.reading import GROUND_TRUTH, Row, Run, located, number, record_at

WORST = 4
HERO_SIDE = 960  # the one large photograph at the top; the others are thumbnails
DECENT = 0.5  # clean IoU a mask needs before it can be said to have held


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One attacked prompt: its record, the row it belongs to, and the IoU before and after."""

    row: Row
    record: Mapping[str, Any]
    prompt: Mapping[str, Any]
    before: float
    after: float

    @property
    def drop(self) -> float:
        """How much IoU the attack took."""
        return self.before - self.after

    @property
    def sample(self) -> str:
        """The image's id."""
        return str(self.record.get("sample", ""))


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """What is drawn over a photograph: the outline of the ground truth (data URI) and the prompt, in pixels."""

    outline: str | None
    points: tuple[tuple[float, float, bool], ...]
    box: tuple[float, float, float, float] | None


@dataclass(frozen=True, kw_only=True)
class Case:
    """One picture of the page. Images are data URIs, shapes are in original pixels (width x height). moved: the overlay
    of the changed photograph, where the change moved pixels; None where `asked` lies on both."""

    role: str
    candidate: Candidate
    width: int
    height: int
    clean: str
    adv: str
    diff: str
    factor: int
    mask_clean: str | None
    mask_adv: str | None
    asked: Overlay
    moved: Overlay | None
    cut: int
    file: str


def pick(run: Run, headline: Sequence[Row], *, worst: int = WORST) -> list[Case]:
    """Cases of the headline cells, ready to draw. Where a picture cannot be read the next one steps in."""
    pool = _Pool(run)
    for row in headline:
        pool.add(row)
    if not pool.places:
        return []
    drops = pool.drops()
    used: set[str] = set()
    cases: list[Case] = []

    def take(role: str, ordered: Iterable[int], count: int) -> None:
        for index in ordered:
            if count == 0:
                return
            candidate = pool.candidate(index)
            if candidate.sample in used:
                continue
            case = _draw(run, candidate, role, hero=not cases)
            if case is not None:
                used.add(candidate.sample)
                cases.append(case)
                count -= 1

    take("worst", _rising(-drops), max(1, min(worst, len(pool.samples) - 2)))
    middle = statistics.median(drops.tolist())
    take("typical", _rising(np.abs(drops - middle)), 1)
    decent = np.flatnonzero(np.frombuffer(pool.before) >= DECENT)
    take("held best", decent[_rising(drops[decent])], 1)
    return cases


def _rising(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.argsort(values, kind="stable")


class _Pool:
    """Every attacked prompt of the headline cells: what it lost and where its record is, a few numbers each."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.rows: list[Row] = []
        self.places, self.prompts, self.row_of = array("q"), array("q"), array("q")
        self.before, self.after = array("d"), array("d")
        self.samples: set[str] = set()

    def add(self, row: Row) -> None:
        """The prompts of one row."""
        self.rows.append(row)
        truth = row.reference == GROUND_TRUTH
        for place, record in located(self.run, row.cell, pictured=True):
            if record.get("status") != "ok":
                continue
            for k, prompt in enumerate(record.get("prompts") or ()):
                if not isinstance(prompt, dict) or not _file(record, prompt):
                    continue
                if str(prompt.get("kind", row.prompt)) != row.prompt:
                    continue
                before = number(prompt.get("iou_clean_gt")) if truth else 1.0
                after = number(prompt.get("iou_adv_gt" if truth else "iou_adv_clean"))
                if before is not None and after is not None:
                    self.samples.add(str(record.get("sample", "")))
                    self.places.append(place)
                    self.prompts.append(k)
                    self.row_of.append(len(self.rows) - 1)
                    self.before.append(before)
                    self.after.append(after)

    def drops(self) -> NDArray[np.float64]:
        """How much IoU the attack took of each."""
        return np.frombuffer(self.before) - np.frombuffer(self.after)

    def candidate(self, index: int) -> Candidate:
        """One of them, its record read again."""
        row = self.rows[self.row_of[index]]
        record = record_at(self.run, row.cell, self.places[index])
        prompt = record["prompts"][self.prompts[index]]
        return Candidate(row=row, record=record, prompt=prompt, before=self.before[index], after=self.after[index])


def _file(record: Mapping[str, Any], prompt: Mapping[str, Any]) -> Any:
    """The adversarial image of a prompt: its own, or the one of all prompts."""
    return prompt.get("image") or record.get("image")


def _draw(run: Run, candidate: Candidate, role: str, *, hero: bool) -> Case | None:
    image = _file(candidate.record, candidate.prompt)
    adv_path = inside(run.out, [f"records/{candidate.row.cell}/{image}", image])
    clean_path = inside(run.out, [candidate.record.get("clean_image"), f"images/{candidate.sample}.png"])
    if adv_path is None or clean_path is None:
        return None
    try:
        clean, adv = read_rgb(clean_path), read_rgb(adv_path)
    except (OSError, ValueError):
        return None
    if clean.shape != adv.shape:
        return None
    side = HERO_SIDE if hero else 480
    diff, factor = amplified(clean, adv)
    height, width = clean.shape[:2]
    told = candidate.prompt
    masks = {key: sized_mask(told.get(f"rle_{key}"), (height, width)) for key in ("clean", "adv", "gt")}
    shown = partial(_overlay, size=(height, width), side=side)
    pixels_moved = "rle_clean_moved" in told
    given = told.get("geometry_given") if pixels_moved else None
    return Case(
        role=role,
        candidate=candidate,
        width=width,
        height=height,
        clean=photo_uri(clean, side=side),
        adv=photo_uri(adv, side=side),
        diff=photo_uri(diff, side=480, quality=70),
        factor=factor,
        mask_clean=None if masks["clean"] is None else mask_uri(masks["clean"], side=side),
        mask_adv=None if masks["adv"] is None else mask_uri(masks["adv"], side=side),
        asked=shown(told.get("rle_gt"), given or told.get("geometry")),
        moved=shown(told.get("rle_gt_moved"), told.get("geometry")) if pixels_moved else None,
        cut=_cut([m for m in (masks["gt"], masks["clean"]) if m is not None and m.any()]),
        file=adv_path.relative_to(run.out.resolve()).as_posix(),
    )


def _overlay(code: Any, geometry: Any, *, size: tuple[int, int], side: int) -> Overlay:
    mask = sized_mask(code, size)
    points, box = prompt_shape(geometry if isinstance(geometry, dict) else {})
    return Overlay(outline=None if mask is None else mask_uri(mask, side=side, outline=True), points=points, box=box)


def inside(out: Path, relative: Sequence[Any]) -> Path | None:
    """The first of these files that exists inside OUT; records may come from elsewhere, so `..` leads nowhere."""
    root = out.resolve()
    for name in relative:
        if not isinstance(name, str) or not name:
            continue
        path = (root / name).resolve()
        if path.is_relative_to(root) and path.is_file():
            return path
    return None


def sized_mask(rle: Any, size: tuple[int, int]) -> Mask | None:
    """The mask of a run-length code; None where it is broken or of another size."""
    if not isinstance(rle, dict):
        return None
    try:
        mask = decode_rle(rle)
    except (KeyError, TypeError, ValueError):
        return None
    return mask if mask.shape == size else None


def _cut(masks: Sequence[Mask]) -> int:
    """Where the slider starts, in percent of the width: at the middle of the object, so that both halves show it."""
    if not masks:
        return 50
    columns = np.nonzero(masks[0].any(axis=0))[0]
    return int(min(85, max(15, round(100 * (columns[0] + columns[-1] + 1) / (2 * masks[0].shape[1])))))


def prompt_shape(
    prompt: Mapping[str, Any],
) -> tuple[tuple[tuple[float, float, bool], ...], tuple[float, float, float, float] | None]:
    """Points (x, y, positive) and box of a prompt as records have it."""
    labels = list(prompt.get("labels") or ())
    points = tuple(
        (float(x), float(y), bool(labels[i]) if i < len(labels) else True)
        for i, (x, y) in enumerate(prompt.get("points") or ())
    )
    box = prompt.get("box")
    if not (isinstance(box, list) and len(box) == 4):
        return points, None
    x0, y0, x1, y1 = (float(v) for v in box)
    return points, (x0, y0, x1, y1)
