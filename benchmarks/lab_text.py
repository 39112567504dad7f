"""Whether a text-prompted lab model finds what is named, on photographs it never saw, beside chance.

    python benchmarks/lab_text.py --data ../shared/data --out benchmarks/results/lab_text.json

Sets: coco_panoptic_val (regions named by eye, see redsam/data/known.py) and the part of pool/voc that neither lab-text
nor the lab model it started from was trained on. Each name that an image holds (VOC: at least 1 % of the image, COCO:
regions of at least 3 %) and that the model was taught is asked once. Pixels of COCO regions without a name count
neither way. `answer`: IoU of what a user gets, empty where presence is not above 0.5. `mask`: IoU of the mask alone.

Chance, in five ways, each on the same pairs:
  other answer  the model's answer on the same image under a name, drawn at random, that is not on it
  other name    its mask alone under that name, whether it says that the name is there or not
  other image   the annotated mask of the same name on another image, drawn at random, stretched to this one
  rectangle     the best centred rectangle, its size chosen on these very pairs
  whole         the whole image
Presence: area under the ROC of (image, name) pairs, over the names that at least three images hold: all pooled, and
within a name (mean over names), which knowing that people are common does not raise. Intervals: images drawn 2,000
times, for the areas 500 times.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from redsam.bench.statistics import difference_interval, image_sums, mean_interval, resamples
from redsam.data import open_data
from redsam.data.naming import spelled
from redsam.models import load
from redsam.types import Scene

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "training"))

Mask = NDArray[np.bool_]
SMALLEST = {"voc": 0.01, "coco_panoptic_val": 0.0}
RECTANGLES = tuple(round(0.3 + 0.05 * i, 2) for i in range(15))  # shares of each side, 1.0 is the whole image
CHANCES = ("other answer", "other name", "other image", "rectangle", "whole")


@dataclass(kw_only=True, eq=False)
class Seen:
    """One image: what is on it and what the model says. ignored HxW; wrong: for each name a name that is not there;
    masks, presence: of every name asked."""

    name: str
    present: dict[str, Mask]
    unsure: set[str]
    ignored: Mask
    wrong: dict[str, str] = field(default_factory=dict)
    masks: dict[str, Mask] = field(default_factory=dict)
    presence: dict[str, float] = field(default_factory=dict)


def look(scene: Scene, smallest: float) -> Seen:
    """The annotation of one image by name."""
    stack = scene.masks.numpy()
    ignored = np.zeros(stack.shape[1:], bool)
    regions: dict[str, Mask] = {}
    for mask, given in zip(stack, scene.meta["classes"], strict=True):
        if given:
            name = spelled(given)
            regions[name] = regions.get(name, False) | mask
        else:
            ignored |= mask
    large = {n: m & ~ignored for n, m in regions.items() if m.mean() >= smallest}
    return Seen(name=scene.id, present=large, unsure=set(regions) - set(large), ignored=ignored)


@torch.no_grad()
def answer(segmenter: Any, scene: Scene, seen: Seen, names: Sequence[str]) -> None:
    """Mask and presence of every name on one image, the mask whatever the presence."""
    encoding = segmenter.encode(scene.image[None], exact=True)
    logits, _, presence = segmenter.net.decode(encoding.features, [list(names)])
    for k, name in enumerate(names):
        seen.masks[name] = (encoding.frames[0].logits(logits[:, k : k + 1].float())[0, 0] > 0).cpu().numpy()
        seen.presence[name] = float(presence[0, k].sigmoid())


def iou(guess: Mask, truth: Mask, ignored: Mask) -> float:
    """Outside what is ignored; two empty masks never meet here."""
    live = ~ignored
    return float((guess & truth & live).sum() / max(1, ((guess | truth) & live).sum()))


def rectangle(shape: tuple[int, int], share: float) -> Mask:
    """Centred, so many of each side."""
    out = np.zeros(shape, bool)
    top, left = (round(n * (1 - share) / 2) for n in shape)
    out[top : shape[0] - top, left : shape[1] - left] = True
    return out


def stretched(mask: Mask, shape: tuple[int, int]) -> Mask:
    """Nearest neighbour."""
    return np.asarray(F.interpolate(torch.from_numpy(mask)[None, None].float(), shape, mode="nearest")[0, 0] > 0.5)


def draw_wrong(seen: Seen, names: Sequence[str], same: Any, rng: np.random.Generator) -> None:
    """For each present name one of `names` that means nothing on the image."""
    here = [*seen.present, *seen.unsure]
    missing = [n for n in names if not any(same(n, other) for other in here)]
    seen.wrong = {n: missing[int(rng.integers(len(missing)))] for n in seen.present if n in names}


def pairs_of(images: list[Seen], rng: np.random.Generator) -> dict[str, Any]:
    """IoU columns over all (image, present name) pairs, and the image of each."""
    columns: dict[str, list[float]] = {key: [] for key in ("answer", "mask", *CHANCES)}
    by_size: dict[float, list[float]] = {share: [] for share in RECTANGLES}
    owners, asked = [], []
    for index, seen in enumerate(images):
        for name, truth in seen.present.items():
            if name not in seen.wrong:
                continue
            owners.append(index)
            asked.append(name)
            others = [s.present[name] for s in images if s is not seen and name in s.present]
            found, wrong = seen.masks[name], seen.wrong[name]
            scores = {
                "mask": found,
                "answer": found & (seen.presence[name] > 0.5),
                "other name": seen.masks[wrong],
                "other answer": seen.masks[wrong] & (seen.presence[wrong] > 0.5),
                "whole": np.ones_like(truth),
            }
            if others:
                scores["other image"] = stretched(others[int(rng.integers(len(others)))], truth.shape)
            for key, guess in scores.items():
                columns[key].append(iou(guess, truth, seen.ignored))
            if not others:  # the only one of its name: it cannot be guessed from another image
                columns["other image"].append(0.0)
            for share in RECTANGLES:
                by_size[share].append(iou(rectangle(truth.shape, share), truth, seen.ignored))
    best = max(RECTANGLES, key=lambda share: float(np.mean(by_size[share])))
    columns["rectangle"] = by_size[best]
    return {"columns": columns, "owners": owners, "asked": asked, "rectangle": best}


def auroc(scores: NDArray[Any], truth: NDArray[np.bool_], weight: NDArray[Any]) -> float:
    """Weighted area under the ROC, ties count half; nan without both kinds."""
    order = np.argsort(scores, kind="stable")
    scores, truth, weight = scores[order], truth[order], weight[order]
    _, start = np.unique(scores, return_index=True)
    pos, neg = np.add.reduceat(weight * truth, start), np.add.reduceat(weight * ~truth, start)
    below = np.concatenate([[0.0], np.cumsum(neg)[:-1]])
    total = pos.sum() * neg.sum()
    return float((pos * (below + neg / 2)).sum() / total) if total > 0 else float("nan")


def presence(images: list[Seen], names: Sequence[str], same: Any, weights: NDArray[Any]) -> dict[str, Any]:
    """Both areas with intervals over images."""
    rows = []
    for index, seen in enumerate(images):
        for name in names:
            if name in seen.present:
                rows.append((index, name, True, seen.presence[name]))
            elif not any(same(name, other) for other in [*seen.present, *seen.unsure]):
                rows.append((index, name, False, seen.presence[name]))
    if not rows:
        return {"pairs": 0, "present": 0, "names within": 0, "pooled": [None] * 3, "within a name": [None] * 3}
    owner = np.array([r[0] for r in rows])
    truth = np.array([r[2] for r in rows])
    scores = np.array([r[3] for r in rows])
    which = np.array([r[1] for r in rows])
    judged = [n for n in names if truth[which == n].sum() >= 3 and (~truth[which == n]).sum() >= 3]

    def within(weight: NDArray[Any]) -> float:
        parts = [auroc(scores[k], truth[k], weight[k]) for k in (which == n for n in judged)]
        return float(np.nanmean(parts)) if parts else float("nan")

    out: dict[str, Any] = {"pairs": len(rows), "present": int(truth.sum()), "names within": len(judged)}
    for key, measure in (("pooled", lambda w: auroc(scores, truth, w)), ("within a name", within)):
        drawn = [measure(w[owner]) for w in weights[:500]]
        lo, hi = np.nanquantile(drawn, [0.025, 0.975])
        out[key] = [round(v, 4) for v in (measure(np.ones(len(rows))), float(lo), float(hi))]
    return out


def measure(segmenter: Any, data: Any, names: Sequence[str], *, smallest: float, seed: int = 0) -> dict[str, Any]:
    """Everything about one set. names: what the model was taught and the set may hold."""
    from names import same

    scenes = list(data)
    images = [look(scene, smallest) for scene in scenes]
    held = Counter(n for seen in images for n in seen.present)
    asked = sorted(n for n in names if n in held)
    common = [n for n in asked if held[n] >= 3]
    rng = np.random.default_rng(seed)
    for scene, seen in zip(scenes, images, strict=True):
        draw_wrong(seen, asked, same, rng)
        answer(segmenter, scene, seen, sorted({*common, *seen.wrong, *seen.wrong.values()}))
    taught = sum(len(seen.wrong) for seen in images)
    found = pairs_of(images, rng)
    weights = resamples(len(images), seed=seed)
    owners = found["owners"]
    counts = image_sums([1.0] * len(owners), owners, len(images))
    sums = {key: image_sums(values, owners, len(images)) for key, values in found["columns"].items()}
    row: dict[str, Any] = {
        "images": len(images), "pairs": len(owners), "names": len(asked), "names asked": asked,
        "not taught": sum(len(s.present) for s in images) - taught, "rectangle share": found["rectangle"],
    }  # fmt: skip
    for key in found["columns"]:
        row[key] = spread(mean_interval(sums[key], counts, weights))
    for key in CHANCES:
        for ours in ("mask", "answer"):
            row[f"{ours} - {key}"] = spread(difference_interval((sums[ours], counts), (sums[key], counts), weights))
    row["presence"] = presence(images, common, same, weights)
    per = {n: [v for v, a in zip(found["columns"]["mask"], found["asked"], strict=True) if a == n] for n in asked}
    row["by name"] = {n: [round(float(np.mean(v)), 3), len(v)] for n, v in per.items() if v}
    return row


def spread(interval: Any) -> list[float | None]:
    """[value, lo, hi]."""
    return [None if v is None else round(v, 4) for v in (interval.value, interval.lo, interval.hi)]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lab-text", help="name or folder")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the folder with eval/ and pool/")
    parser.add_argument("--limit", type=int, default=None, help="images of each set, for a try")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    from names import VOC
    from pack_text import held_out, tasks_of

    pool = args.data / "pool"
    names = tasks_of(pool)[1]
    segmenter = load(args.model)
    voc = open_data(pool / "voc")
    kept = held_out(pool)
    part = voc.subset(name for name in voc.ids if f"voc/{name}" in kept)
    coco = open_data(args.data / "eval" / "coco_panoptic_val")
    out: dict[str, Any] = {
        "command": "python benchmarks/lab_text.py", "model": Path(args.model).name,
        "fingerprint": segmenter.fingerprint(), "sets": {},
    }  # fmt: skip
    for key, data, own in (("coco_panoptic_val", coco, names), ("voc", part, VOC)):
        data = data.limit(args.limit) if args.limit else data
        out["sets"][key] = measure(segmenter, data, own, smallest=SMALLEST[key])
    show(out)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(out, indent=1) + "\n")


def show(out: dict[str, Any]) -> None:
    """The table on the console."""
    table = Table("set", "what", "mean IoU", "mask minus it", "answer minus it")
    for key, row in out["sets"].items():
        for what in ("answer", "mask", *CHANCES):
            cells = [row[what], row.get(f"mask - {what}"), row.get(f"answer - {what}")]
            table.add_row(f"{key} ({row['pairs']} / {row['images']})", what, *map(words, cells))
        for what in ("pooled", "within a name"):
            table.add_row(key, f"presence AUROC, {what}", words(row["presence"][what]), "", "")
    Console(width=130).print(table)


def words(cell: Sequence[float | None] | None) -> str:
    """`0.31 [0.28, 0.35]`."""
    if cell is None or cell[0] is None:
        return ""
    return f"{cell[0]:.3f}" + (f" [{cell[1]:.3f}, {cell[2]:.3f}]" if cell[1] is not None else "")


if __name__ == "__main__":
    main()
