"""measure: what a trigger does to a model. Clean IoU kept, ASR against the attacker's mask, and the four measures that
BadSAM prints, each on the clean picture (against the ground truth) and on the triggered one (against the attacker's
mask, so that there high means the attack succeeds).

ASR: share of prompts whose answer on the triggered picture has an IoU of at least `threshold` with the attacker's mask;
where the attacker wants nothing, whose answer covers at most 0.1 % of the picture. `by chance` is the same share on the
clean picture. Intervals: 95 %, bootstrap over images, prompts nested.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from redsam.backdoor.plant import Route, asked, protocols_of
from redsam.backdoor.poison import Poison
from redsam.bench.rle import encode
from redsam.bench.statistics import image_sums, mean_interval, resamples
from redsam.data.base import Dataset
from redsam.defenses.base import Purifier
from redsam.errors import InputError
from redsam.metrics import area, e_measure, iou, mae, s_measure, weighted_f
from redsam.models.base import Segmenter
from redsam.seeds import stable_seed
from redsam.types import Sample

THRESHOLD = 0.5
NOTHING = 0.001  # share of the picture that still counts as an empty answer
MEASURES = {"s_measure": s_measure, "e_measure": e_measure, "weighted_f": weighted_f, "mae": mae}
MEANS = ("iou_clean", "iou_triggered", "iou_attacker", "asr", "chance")
Row = dict[str, Any]


class Watch(Protocol):
    """Called after every picture."""

    def __call__(self, *, done: int, total: int, row: Row) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Measured:
    """rows: one for each picture, `ok` or `failed` with a reason. threshold: of the ASR. seconds: a picture, of the
    purifiers alone."""

    rows: list[Row]
    threshold: float
    poison: Poison
    model: str
    purifiers: tuple[str, ...] = ()
    summary: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with every row."""
        return {
            "model": self.model, "purifiers": list(self.purifiers), "threshold": self.threshold,
            "poison": self.poison.to_dict(), "summary": self.summary, "rows": self.rows,
        }  # fmt: skip


def measure(
    model: Segmenter,
    data: Dataset,
    poison: Poison,
    *,
    purifiers: Sequence[Purifier] = (),
    threshold: float = THRESHOLD,
    seed: int = 0,
    max_objects: int | None = 8,
    progress: Watch | None = None,
) -> Measured:
    """Ask about every picture as it is and with the trigger, each through the purifiers if there are any.

    Models that hear no prompt are asked for the foreground, all others for each object by a point and by a box. Raises
    InputError when no picture can be measured.
    """
    if not 0 < threshold <= 1:
        raise InputError(f"An IoU threshold of {threshold:g} decides nothing.", hint="Type: --threshold 0.5")
    protocols = protocols_of(route_of(model), max_objects)
    rows: list[Row] = []
    for index, name in enumerate(data.ids):
        try:
            scene = data[index]
            sample = asked([p(scene, seed=seed) for p in protocols])
            if not sample.prompts:
                row: Row = {"sample": name, "status": "skipped", "reason": str(sample.meta.get("skip", "no prompt"))}
            else:
                row = {"sample": name, "status": "ok", **one(model, sample, poison, purifiers, threshold, seed)}
        except InputError as error:
            row = {"sample": name, "status": "failed", "reason": str(error)}
        rows.append(row)
        if progress is not None:
            progress(done=index + 1, total=len(data), row=row)
    if not any(r["status"] == "ok" for r in rows):
        raise InputError(f"None of the {len(rows)} pictures could be measured: {rows[0].get('reason')}")
    return Measured(
        rows=rows, threshold=threshold, poison=poison, model=model.name,
        purifiers=tuple(p.label for p in purifiers), summary=summarise(rows, seed=seed),
    )  # fmt: skip


def route_of(model: Segmenter) -> Route:
    """How a model is asked: without a prompt when it, or the model behind its purifiers, hears none."""
    return "tuning" if getattr(getattr(model, "undefended", model), "prompted", True) else "adapter"


def purified(image: Tensor, purifiers: Sequence[Purifier], name: str, seed: int) -> tuple[Tensor, float]:
    """3xHxW through all purifiers in order, and the seconds that took."""
    began = time.perf_counter()
    out = image[None]
    for place, purifier in enumerate(purifiers):
        out = purifier.run(out, seeds=[stable_seed("purify", seed, name, place)])
    return out[0].cpu(), time.perf_counter() - began


def one(
    model: Segmenter, sample: Sample, poison: Poison, purifiers: Sequence[Purifier], threshold: float, seed: int
) -> Row:
    """Numbers of one picture, a list entry for each prompt; masks as run lengths for the report."""
    assert sample.masks is not None
    bad = poison.apply(sample)
    assert bad.masks is not None
    clean_image, seconds = purified(sample.image, purifiers, sample.id, seed)
    bad_image, again = purified(bad.image, purifiers, sample.id, seed)
    clean, triggered = model.predict([clean_image, bad_image], [list(sample.prompts)] * 2)
    masks, fooled = clean.masks.cpu(), triggered.masks.cpu()
    told: Row = {
        "kinds": [p.kind for p in sample.prompts],
        "iou_clean": iou(masks, sample.masks).tolist(),
        "iou_triggered": iou(fooled, sample.masks).tolist(),
        "iou_attacker": iou(fooled, bad.masks).tolist(),
        "asr": hits(fooled, bad.masks, threshold).tolist(),
        "chance": hits(masks, bad.masks, threshold).tolist(),
        "seconds": (seconds + again) / 2,
    }
    maps = clean.logits.detach().cpu().float().sigmoid(), triggered.logits.detach().cpu().float().sigmoid()
    for key, function in MEASURES.items():
        told[f"{key}_clean"] = function(maps[0], sample.masks).tolist()
        told[f"{key}_triggered"] = function(maps[1], bad.masks).tolist()
    first = {"clean": masks[0], "triggered": fooled[0], "truth": sample.masks[0], "attacker": bad.masks[0]}
    return told | {"masks": {key: encode(mask[None])[0] for key, mask in first.items()}}


def hits(masks: Tensor, wanted: Tensor, threshold: float) -> Tensor:
    """Which answers, bool PxHxW, are the attacker's (see above); bool P."""
    return torch.where(wanted.flatten(1).any(1), iou(masks, wanted) >= threshold, area(masks) <= NOTHING)


def summarise(rows: Sequence[Row], *, seed: int = 0) -> dict[str, Any]:
    """Means with intervals, all on the same resampled images."""
    good = [r for r in rows if r["status"] == "ok"]
    owner = np.array([i for i, r in enumerate(good) for _ in r["kinds"]])
    counts = image_sums(np.ones(len(owner)), owner, len(good))
    weights = resamples(len(good), seed=stable_seed("backdoor", seed))
    out: dict[str, Any] = {
        "images": len(good),
        "prompts": len(owner),
        "failed": sum(r["status"] == "failed" for r in rows),
        "skipped": sum(r["status"] == "skipped" for r in rows),
        "seconds": float(np.mean([r["seconds"] for r in good])),
    }
    for key in (*MEANS, *(f"{m}_{side}" for m in MEASURES for side in ("clean", "triggered"))):
        values = np.array([v for r in good for v in r[key]], dtype=np.float64)
        found = mean_interval(image_sums(values, owner, len(good)), counts, weights)
        out[key] = {"value": found.value, "lo": found.lo, "hi": found.hi}
    return out
