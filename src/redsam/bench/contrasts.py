"""Paired differences between cells that differ in the prompt alone: is a box more robust than a point?"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redsam.bench.spec import Cell, JsonDict, digest
from redsam.bench.statistics import (
    Array,
    Interval,
    difference_interval,
    gap_interval,
    image_sums,
    mean_interval,
    prepare,
    resamples,
)
from redsam.bench.table import REFERENCES, Table

# (first, second): first minus second. Boxes are published as more robust than points, so both signs read naturally.
PAIRS = (("box", "point"), ("points", "point"), ("mask", "point"))
MEASURES = ("miou_adv", "delta", "asr50", "asr10")


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A difference (or a mean) with its interval, and from how many images."""

    found: Interval
    images: int

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval lies above or below zero, 0 where it does not or there is none."""
        lo, hi = self.found.lo, self.found.hi
        return 0 if lo is None or hi is None else int(lo > 0) - int(hi < 0)


def contrasts(tables: Sequence[Table]) -> list[JsonDict]:
    """Every pair of prompt kinds under the same model, probe, threat and data, over the images measured in both.

    Each entry: name, model, attack, threat, eps, severity, reference, measure, value with its interval lo..hi,
    n_images, and the two cells. The images are drawn together for both, so what is common to an image cancels.
    """
    groups: dict[str, list[Table]] = {}
    for one in tables:
        groups.setdefault(same_but_prompts(one.cell), []).append(one)
    return [entry for group in groups.values() for entry in _of_group(group)]


def same_but_prompts(cell: Cell) -> str:
    """What all cells have in common that are compared with this one."""
    spec = cell.spec()
    del spec["protocol"]
    return digest(spec)


def _of_group(group: Sequence[Table]) -> Iterator[JsonDict]:
    by_kind: dict[str, Table] = {}
    for one in group:
        for kind in sorted(set(one.kinds.tolist())):
            by_kind.setdefault(kind, one.where(one.kinds == kind))
    for first, second in PAIRS:
        if first in by_kind and second in by_kind:
            yield from _pair(first, by_kind[first], second, by_kind[second])


def _pair(first: str, a: Table, second: str, b: Table) -> Iterator[JsonDict]:
    shared = sorted(_with_prompts(a) & _with_prompts(b))
    if not shared:
        return
    cell = a.cell
    sides_of = [(t, _owners(t, shared)) for t in (a, b)]
    asked = [
        (reference, measure, [_sums(_values(t, measure, reference), owner, len(shared)) for t, owner in sides_of])
        for reference in REFERENCES if a.known(reference) and b.known(reference)
        for measure in MEASURES
        if not (cell.clean and (measure == "delta" or reference != REFERENCES[0]))  # zero by definition
    ]  # fmt: skip
    weights = resamples(len(shared), seed=int(digest([a.cell.id, b.cell.id]), 16))
    prepare(weights, [column for *_, sides in asked for side in sides for column in side])
    for reference, measure, sides in asked:
        found = difference_interval(sides[0], sides[1], weights)
        yield {
            "name": f"{first} minus {second}",
            "first": first,
            "second": second,
            "model": cell.who,
            "attack": cell.probe["name"],
            "source": cell.source,
            "threat": cell.threat,
            "eps": cell.eps,
            "severity": cell.severity,
            "data": cell.data["name"],
            "reference": reference,
            "measure": measure,
            "value": found.value,
            "lo": found.lo,
            "hi": found.hi,
            "n_images": len(shared),
            "cells": [a.cell.id, b.cell.id],
        }


def paired(a: Table, b: Table, *, measure: str, reference: str, among: Collection[str] | None = None) -> Gap | None:
    """Mean of `measure` in one cell minus that in another, over the images measured in both (and among those named),
    drawn together. None where there is no such image or no such reference. Meant for cells of one model that ask the
    same prompts under different probes."""
    shared = sorted(n for n in _with_prompts(a) & _with_prompts(b) if among is None or n in among)
    if not shared or not (a.known(reference) and b.known(reference)):
        return None
    weights = resamples(len(shared), seed=int(digest([a.cell.id, b.cell.id]), 16))
    sides = [_sums(_values(t, measure, reference), _owners(t, shared), len(shared)) for t in (a, b)]
    return Gap(found=difference_interval(sides[0], sides[1], weights), images=len(shared))


def alone(a: Table, *, measure: str, reference: str, among: Collection[str]) -> Gap | None:
    """Mean of `measure` over those of a cell's images that are named."""
    chosen = sorted(_with_prompts(a) & set(among))
    if not chosen or not a.known(reference):
        return None
    weights = resamples(len(chosen), seed=int(a.cell.id, 16))
    sums, counts = _sums(_values(a, measure, reference), _owners(a, chosen), len(chosen))
    return Gap(found=mean_interval(sums, counts, weights), images=len(chosen))


def unpaired(a: Table, b: Table, *, measure: str, reference: str) -> Gap | None:
    """The same for cells on other images each; `images` is then the smaller number."""
    names = [sorted(_with_prompts(t)) for t in (a, b)]
    if not all(names) or not (a.known(reference) and b.known(reference)):
        return None
    sides = [_sums(_values(t, measure, reference), _owners(t, n), len(n)) for t, n in zip((a, b), names, strict=True)]
    found = gap_interval(sides[0], sides[1], seed=int(digest([a.cell.id, b.cell.id]), 16))
    return Gap(found=found, images=min(map(len, names)))


def _with_prompts(data: Table) -> set[str]:
    return {data.samples[i] for i in set(data.owner.tolist())}


def _values(data: Table, measure: str, reference: str) -> Array:
    adv = data.column("iou", "adv", reference)
    if measure == "delta":
        return data.column("iou", "clean", reference) - adv
    limits = {"asr50": 0.5, "asr10": 0.1}
    return (adv <= limits[measure]).astype(np.float64) if measure in limits else adv


def _owners(data: Table, shared: Sequence[str]) -> NDArray[np.int64]:
    """For each prompt the place of its image among the shared ones, -1 for another image."""
    place = {name: i for i, name in enumerate(shared)}
    images: NDArray[np.int64] = np.array([place.get(name, -1) for name in data.samples], dtype=np.int64)
    return images[data.owner]


def _sums(values: Array, owner: NDArray[np.int64], images: int) -> tuple[Array, Array]:
    """(sum, number) of the values of each image."""
    keep = owner >= 0
    owner = owner[keep]
    return image_sums(values[keep], owner, images), image_sums(np.ones(len(owner)), owner, images)
