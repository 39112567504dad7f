"""Paired differences between cells that differ in the prompt alone: is a box more robust than a point?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from redsam.bench.spec import JsonDict, digest
from redsam.bench.statistics import Array, difference_interval, image_sums, resamples
from redsam.bench.table import REFERENCES, Table

# (first, second): first minus second. Boxes are published as more robust than points, so both signs read naturally.
PAIRS = (("box", "point"), ("points", "point"), ("mask", "point"))
MEASURES = ("miou_adv", "delta", "asr50", "asr10")


def contrasts(tables: Sequence[Table]) -> list[JsonDict]:
    """Every pair of prompt kinds under the same model, probe, threat and data, over the images measured in both.

    Each entry: name, model, attack, threat, eps, severity, reference, measure, value with its interval lo..hi,
    n_images, and the two cells. The images are drawn together for both, so what is common to an image cancels.
    """
    groups: dict[str, list[Table]] = {}
    for one in tables:
        spec = one.cell.spec()
        del spec["protocol"]
        groups.setdefault(digest(spec), []).append(one)
    return [entry for group in groups.values() for entry in _of_group(group)]


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
    weights = resamples(len(shared), seed=int(digest([a.cell.id, b.cell.id]), 16))
    for reference in REFERENCES:
        if not (a.known(reference) and b.known(reference)):
            continue
        for measure in MEASURES:
            if cell.clean and (measure == "delta" or reference != REFERENCES[0]):
                continue  # zero by definition
            sides = [_sums(t, shared, _values(t, measure, reference)) for t in (a, b)]
            found = difference_interval(sides[0], sides[1], weights)
            yield {
                "name": f"{first} minus {second}",
                "first": first,
                "second": second,
                "model": cell.model["name"],
                "attack": cell.probe["name"],
                "source": cell.probe["source"]["name"] if cell.replay else None,
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


def _with_prompts(data: Table) -> set[str]:
    return {data.samples[i] for i in set(data.owner.tolist())}


def _values(data: Table, measure: str, reference: str) -> Array:
    adv = data.column("iou", "adv", reference)
    if measure == "delta":
        return data.column("iou", "clean", reference) - adv
    limits = {"asr50": 0.5, "asr10": 0.1}
    return (adv <= limits[measure]).astype(np.float64) if measure in limits else adv


def _sums(data: Table, shared: Sequence[str], values: Array) -> tuple[Array, Array]:
    """(sum, number) of the values of each shared image."""
    place = {name: i for i, name in enumerate(shared)}
    images: NDArray[np.int64] = np.array([place.get(name, -1) for name in data.samples], dtype=np.int64)
    owner = images[data.owner]
    keep = owner >= 0
    owner = owner[keep]
    return image_sums(values[keep], owner, len(shared)), image_sums(np.ones(len(owner)), owner, len(shared))
