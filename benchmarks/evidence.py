"""Evidence: records of runs to paired differences with intervals over images, and a verdict by the interval alone.

Means over prompts, percentile intervals over images with the prompts nested, the same images drawn for every side
(bench.statistics). What is claimed lies above a bar: an interval wholly above it is "reproduced", wholly below it "not
reproduced", anything else "undecided".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redsam.bench.statistics import LEVEL, RESAMPLES, image_sums, resamples
from redsam.seeds import stable_seed

REPRODUCED, NOT_REPRODUCED, UNDECIDED = "reproduced", "not reproduced", "undecided"
MIN_IMAGES = 5  # on fewer a percentile bootstrap over images is no interval

Record = Mapping[str, Any]
Column = dict[str, tuple[float, int]]  # image -> (sum of its prompts' values, their number)
Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Field:
    """What one attack ("clean" for none) did to one victim. run: study; crafted, tested: prompts of the attacker and of
    the test, "" where the study has one only. records: latest of each image, names of images prefixed with their set's,
    so that sets pool."""

    run: str
    attack: str
    victim: str
    crafted: str = ""
    tested: str = ""
    records: tuple[Record, ...]


Bank = Sequence[Field]


class NotMeasured(Exception):
    """The bank lacks what a claim is about."""


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """value with its interval lo..hi (None on too few images), which the claim has above `bar`."""

    name: str
    value: float
    lo: float | None
    hi: float | None
    bar: float
    level: float
    images: int

    @property
    def verdict(self) -> str:
        """Decided by the interval."""
        if self.lo is None or self.hi is None:
            return UNDECIDED
        return REPRODUCED if self.lo > self.bar else NOT_REPRODUCED if self.hi < self.bar else UNDECIDED


Groups = list[list[Contrast]]  # a claim holds where every contrast of any one group does


def find(bank: Bank, **wanted: str) -> tuple[Record, ...]:
    """Records of the one field that is so. Raises NotMeasured for none, ValueError for several."""
    found = [f for f in bank if all(getattr(f, name) == value for name, value in wanted.items())]
    if len(found) > 1:
        raise ValueError(f"{len(found)} fields are {wanted}")
    if not found or not any(r["status"] == "ok" for r in found[0].records):
        raise NotMeasured(", ".join(wanted.values()))
    return found[0].records


def column(records: Iterable[Record], value: Callable[[Record], float | None], kind: str | None = None) -> Column:
    """Per image the values of its prompts (entries of a record's "prompts"), of one kind if given."""
    out: Column = {}
    for record in records:
        if record["status"] != "ok":
            continue
        values = [value(p) for p in record["prompts"] if kind in (None, p["kind"])]
        known = [v for v in values if v is not None]
        if known:
            total, count = out.get(record["sample"], (0.0, 0))
            out[record["sample"]] = (total + sum(known), count + len(known))
    return out


def pooled(
    parts: Sequence[Iterable[Record]], value: Callable[[Record], float | None], kind: str | None = None
) -> Column:
    """One column of several runs' prompts, of one kind if given, over the images that every run has."""
    columns = [column(records, value, kind) for records in parts]
    shared = set.intersection(*map(set, columns))
    return {s: (sum(c[s][0] for c in columns), sum(c[s][1] for c in columns)) for s in shared}


def of(name: str) -> Callable[[Record], float | None]:
    """A number of a prompt's entry."""
    return lambda prompt: prompt[name]


def drop(prompt: Record) -> float | None:
    """IoU with ground truth lost."""
    clean, adv = prompt["iou_clean_gt"], prompt["iou_adv_gt"]
    return None if clean is None or adv is None else clean - adv


def contrast(
    name: str, columns: Sequence[Column], combine: Callable[..., Array], *, bar: float = 0.0, level: float = LEVEL
) -> Contrast:
    """`combine` of the pooled means of the columns, over the images that all of them have, drawn together. combine:
    arrays of means to an array, elementwise."""
    shared = sorted(set.intersection(*(set(c) for c in columns)))
    if not shared:
        raise NotMeasured(f"{name}: no image was measured on every side")
    owner = np.arange(len(shared))
    sums = [image_sums([c[s][0] for s in shared], owner, len(shared)) for c in columns]
    counts = [image_sums([c[s][1] for s in shared], owner, len(shared)) for c in columns]
    value = combine(*(np.array([a.sum() / n.sum()]) for a, n in zip(sums, counts, strict=True)))
    lo = hi = None
    if len(shared) >= MIN_IMAGES:
        weights = resamples(len(shared), seed=stable_seed("claims", name), count=RESAMPLES)
        drawn = combine(*((weights @ a) / (weights @ n) for a, n in zip(sums, counts, strict=True)))
        lo, hi = map(float, np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]))
    return Contrast(name=name, value=float(value[0]), lo=lo, hi=hi, bar=bar, level=level, images=len(shared))


def alone(means: Array) -> Array:
    """A column as it is, for an interval of its own."""
    return means


def minus(first: Array, second: Array) -> Array:
    """First minus second."""
    return first - second


def verdict(groups: Groups) -> str:
    """Reproduced if every contrast of some group is; not reproduced if some contrast of every group is not."""
    found = []
    for group in groups:
        each = {c.verdict for c in group}
        found.append(NOT_REPRODUCED if NOT_REPRODUCED in each else REPRODUCED if each == {REPRODUCED} else UNDECIDED)
    if REPRODUCED in found:
        return REPRODUCED
    return NOT_REPRODUCED if found and set(found) == {NOT_REPRODUCED} else UNDECIDED
