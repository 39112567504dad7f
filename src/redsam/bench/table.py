"""The records of one cell as columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redsam.bench.spec import Cell, JsonDict
from redsam.bench.statistics import Array

GROUND_TRUTH, CLEAN_PREDICTION = "ground truth", "clean prediction"
REFERENCES = (GROUND_TRUTH, CLEAN_PREDICTION)


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """Prompts of the measured images of a cell.

    samples: names of the measured images. owner: for each prompt the index of its image in them. kinds: its prompt
    kind. columns: its numbers, NaN where not measured. images: the records of the measured images. failures: one entry
    for each image that was not measured; failed and skipped count them. gone: kinds of the prompts that left their
    (measured) image when a corruption moved its pixels.
    """

    cell: Cell
    samples: tuple[str, ...]
    owner: NDArray[np.int64]
    kinds: NDArray[np.str_]
    columns: dict[str, Array]
    images: tuple[JsonDict, ...]
    failures: tuple[JsonDict, ...]
    failed: int
    skipped: int
    gone: tuple[str, ...] = ()

    def where(self, keep: NDArray[np.bool_]) -> Table:
        """Only these prompts; the images stay, so that resamples of all kinds draw from the same images."""
        columns = {name: values[keep] for name, values in self.columns.items()}
        return replace(self, owner=self.owner[keep], kinds=self.kinds[keep], columns=columns)

    def known(self, reference: str) -> bool:
        """Whether every prompt has been measured against this reference."""
        values = self.column("iou", "adv", reference)
        return len(values) > 0 and bool(np.isfinite(values).all())

    def column(self, measure: str, when: str, reference: str) -> Array:
        """`iou` or `biou`, `clean` or `adv`, against a reference; the clean prediction agrees with itself."""
        if reference == CLEAN_PREDICTION and when == "clean":
            return np.ones(len(self.owner))
        return self.columns[f"{measure}_{when}_{'gt' if reference == GROUND_TRUTH else 'clean'}"]

    def costs(self) -> JsonDict:
        """What the images of the cell cost and how they look; means over adversarial images, maxima where the name says
        so. mse: of the values in [0, 1]. steps_mean, queries_mean: None where not counted."""
        return {
            "psnr": _mean(self._of_images("psnr")),
            "ssim": _mean(self._of_images("ssim")),
            "linf_max": max(self._of_images("linf"), default=None),
            "l2_max": max(self._of_images("l2"), default=None),
            "l0_max": max(self._of_images("l0"), default=None),
            "shift_max": max(self._of_images("shift"), default=None),
            "l0_mean": _mean(self._of_images("l0")),
            "mse": _mean(self._mse()),
            "steps_mean": _mean(self._of_images("steps")),
            "queries_mean": _mean(self._of_images("queries")),
            "seconds": sum(r["seconds"] for r in self.images if r.get("seconds") is not None),
            "peak_mb": max((r["peak_mb"] for r in self.images if r.get("peak_mb") is not None), default=None),
        }

    def _of_images(self, name: str) -> list[float]:
        return [one[name] for _, one in self._adversarial() if one.get(name) is not None]

    def _mse(self) -> list[float]:
        return [one["l2"] ** 2 / (3 * r["height"] * r["width"]) for r, one in self._adversarial()]

    def _adversarial(self) -> Iterator[tuple[JsonDict, JsonDict]]:
        """Record and numbers of every adversarial image: the record's own, or those of its prompts."""
        for r in self.images:
            apart = [p for p in r["prompts"] if "linf" in p]
            yield from ((r, one) for one in apart or [r])


COLUMNS = tuple(f"{m}_{pair}" for m in ("iou", "biou") for pair in ("clean_gt", "adv_gt", "adv_clean"))


def table(cell: Cell, records: Sequence[JsonDict]) -> Table:
    """Records of one cell, one for each sample, to columns."""
    good = [r for r in records if r["status"] == "ok"]
    prompts: list[tuple[int, Any]] = [(i, p) for i, r in enumerate(good) for p in r["prompts"] if not p.get("gone")]
    return Table(
        cell=cell,
        samples=tuple(r["sample"] for r in good),
        owner=np.array([i for i, _ in prompts], dtype=np.int64),
        kinds=np.array([p["kind"] for _, p in prompts], dtype=np.str_),
        columns={
            name: np.array([np.nan if p[name] is None else p[name] for _, p in prompts], dtype=np.float64)
            for name in COLUMNS
        },
        images=tuple(good),
        failures=tuple(
            {key: r[key] for key in ("cell", "sample", "status", "reason")} for r in records if r["status"] != "ok"
        ),
        failed=sum(r["status"] == "failed" for r in records),
        skipped=sum(r["status"] == "skipped" for r in records),
        gone=tuple(p["kind"] for r in good for p in r["prompts"] if p.get("gone")),
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
