"""What every corruption does to the picture and to lab-b: mean PSNR at severities 1 to 5, mean IoU at 1 and 5.

    python benchmarks/corruption_iou.py --data ../shared/data/eval --docs docs/corruptions.md

Photographs of bsds_test and camvid720 at their own size, drawn at random (more of them contain the fewer); one random
point and the exact box of up to 4 objects of at least 1 % of the picture. Each photograph is corrupted with the seed of
its own name. IoU is against ground truth and against the model's answer to the clean photograph; where a
corruption moves pixels, masks, clean answers and prompts move with them, and a prompt that leaves the picture at any
severity is left out at all of them. Intervals: percentile bootstrap over photographs, prompts nested; severity 5 minus
severity 1 is paired. An exception is a mean PSNR that does not fall from one severity to the next, or a mean IoU at
severity 5 that is not surely below that at 1: "higher" when the interval lies above 0, "undecided" when it straddles 0.

One line of --work for each photograph and corruption; stopped, it goes on, and measures again what a changed corruption
or other weights would answer otherwise. Corruptions that need something of yours are left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from pages import fill
from torch import Tensor

from redsam.bench.statistics import Interval, difference_interval, image_sums, mean_interval, resamples
from redsam.data import Dataset, open_data, read_image
from redsam.data.demo import demo_root
from redsam.data.protocols import ExactBox, Point
from redsam.metrics import iou
from redsam.metrics.images import psnr
from redsam.models import load
from redsam.models.base import Segmenter
from redsam.prompts import Prompt
from redsam.registry import create, entries
from redsam.seeds import stable_seed
from redsam.types import Sample, Scene, to_uint8

Row = dict[str, Any]
Bank = dict[tuple[str, str, str], Row]  # photograph, corruption, its bytes

# Photographs of each set; one of camvid720 has 4.5 times the pixels of one of bsds_test, and takes 3 times as long.
IMAGES = {"bsds_test": 8, "camvid720": 4}
SEVERITIES = (1, 2, 3, 4, 5)
ASKED = (1, 5)  # severities at which the model answers
OBJECTS = 4
KINDS = {"point": Point, "box": ExactBox}
REFERENCES = ("truth", "clean")
MARKER = "iou"
COMMAND = "python benchmarks/corruption_iou.py"


def names() -> list[str]:
    """Corruptions that need nothing from outside; `matched` is another one of them, mixed with the photograph."""
    return [e.name for e in entries("corruption") if not e.meta.get("needs") and e.name != "matched"]


def drawn(folder: Path, count: int) -> Dataset:
    """So many photographs at random; the first of them do not depend on how many are wanted."""
    data = open_data(folder)
    return data.subset(sorted(data.ids, key=lambda name: stable_seed("corruption-iou", name))[:count])


def samples(scene: Scene) -> dict[str, Sample]:
    """Points and boxes of the same objects."""
    return {kind: protocol(max_objects=OBJECTS)(scene, seed=0) for kind, protocol in KINDS.items()}


def look(segmenter: Segmenter, part: str, scene: Scene, wanted: Mapping[str, str], done: Bank) -> Iterator[Row]:
    """What is not yet known of one photograph, one corruption after the other. wanted: names with their bytes."""
    name = f"{part}/{scene.id}"
    todo = [c for c, made in wanted.items() if (name, c, made) not in done]
    if not todo:
        return
    asked = samples(scene)
    prompts = tuple(p for s in asked.values() for p in s.prompts)
    truth = torch.cat([s.masks for s in asked.values() if s.masks is not None])
    clean = answer(segmenter, scene.image, prompts)
    for corruption in todo:
        start = time.process_time()
        found = one(segmenter, corruption, scene, prompts, truth, clean)
        yield {
            "image": name, "corruption": corruption, "bytes": wanted[corruption], "model": segmenter.fingerprint(),
            "kinds": [p.kind for p in prompts], "before": numbers(iou(clean, truth)), **found,
            "seconds": round(time.process_time() - start, 2),
        }  # fmt: skip


def made_of(name: str) -> str:
    """16 hex digits of what a corruption makes of a small picture at every severity: it changes when the corruption
    does."""
    image = read_image(demo_root() / "coffee.jpg")[None, :, :96, :128]
    whole = hashlib.sha256()
    for severity in SEVERITIES:
        whole.update(to_uint8(create("corruption", name, severity=severity).run(image).images).numpy().tobytes())
    return whole.hexdigest()[:16]


def one(
    segmenter: Segmenter, name: str, scene: Scene, prompts: Sequence[Prompt], truth: Tensor, clean: Tensor
) -> dict[str, Any]:
    """One corruption of one photograph. iou: reference -> severity -> one number a prompt, None where it left."""
    out: dict[str, Any] = {"psnr": [], "iou": {reference: {} for reference in REFERENCES}}
    for severity in SEVERITIES:
        made = create("corruption", name, severity=severity).run(scene.image[None], seeds=[stable_seed(scene.id)])
        value = float(psnr(made.images, scene.image[None])[0])
        out["psnr"].append(round(value, 4) if np.isfinite(value) else None)
        if severity not in ASKED:
            continue
        moved = made.prompts(0, prompts)
        kept = [i for i, p in enumerate(moved) if p is not None]
        got = answer(segmenter, made.images[0], [p for p in moved if p is not None])
        for reference, masks in zip(REFERENCES, (truth, clean), strict=True):
            cells: list[float | None] = [None] * len(prompts)
            for i, number in zip(kept, numbers(iou(got, made.masks(0, masks)[kept])), strict=True):
                cells[i] = number
            out["iou"][reference][str(severity)] = cells
    return out


def answer(segmenter: Segmenter, image: Tensor, prompts: Sequence[Prompt]) -> Tensor:
    """Bool PxHxW."""
    return segmenter.predict(image[None], [prompts])[0].masks.cpu()


def numbers(values: Tensor) -> list[float]:
    """For JSON."""
    return [round(v, 5) for v in values.tolist()]


def seen(work: Path, model: str) -> Bank:
    """What earlier runs with these weights measured; a torn last line is passed over."""
    found: Bank = {}
    for line in work.read_text().splitlines() if work.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row["model"] == model:
            found[row["image"], row["corruption"], row["bytes"]] = row
    return found


def column(rows: Sequence[Row], reference: str, kind: str, severity: int) -> tuple[Any, Any]:
    """(sums, counts) over photographs, of prompts that never left."""
    values, owners = [], []
    for number, row in enumerate(rows):
        by = row["iou"][reference]
        for i, k in enumerate(row["kinds"]):
            if k == kind and all(by[str(s)][i] is not None for s in ASKED):
                values.append(by[str(severity)][i])
                owners.append(number)
    return image_sums(values, owners, len(rows)), image_sums([1.0] * len(values), owners, len(rows))


def span(found: Interval) -> list[float | None]:
    """[value, lo, hi]."""
    return [round(v, 4) if v is not None else None for v in (found.value, found.lo, found.hi)]


def summary(found: Mapping[str, Sequence[Row]]) -> list[dict[str, Any]]:
    """One entry for each corruption. drop: IoU at 5 minus IoU at 1, paired."""
    out = []
    for name, rows in found.items():
        weights = resamples(len(rows), seed=0)
        levels = [[row["psnr"][i] for row in rows] for i in range(len(SEVERITIES))]
        means = [float(np.mean([v for v in level if v is not None])) for level in levels]
        entry: dict[str, Any] = {
            "name": name, "psnr": [round(m, 2) for m in means],
            "rises": [f"{i} to {i + 1}" for i in range(1, 5) if not means[i] < means[i - 1]],
            "iou": {}, "drop": {},
        }  # fmt: skip
        for reference in REFERENCES:
            for kind in KINDS:
                by = {s: column(rows, reference, kind, s) for s in ASKED}
                key = f"{kind}/{reference}"
                entry["iou"][key] = {str(s): span(mean_interval(*by[s], weights)) for s in ASKED}
                entry["drop"][key] = span(difference_interval(by[5], by[1], weights))
        out.append(entry)
    return out


def verdict(drop: Sequence[float | None]) -> str:
    """Of IoU at severity 5 minus IoU at 1, by its interval."""
    _, lo, hi = drop
    if lo is None or hi is None:
        return "undecided"
    return "lower" if hi < 0 else "higher" if lo > 0 else "undecided"


def exceptions(table: Sequence[dict[str, Any]]) -> list[str]:
    """Sentences."""
    out = [f"{e['name']}: mean PSNR does not fall from {', '.join(e['rises'])}" for e in table if e["rises"]]
    for e in table:
        odd = {k: d for k, d in e["drop"].items() if verdict(d) != "lower"}
        told = ", ".join(f"{k.replace('/', ' against ')} {show(d, sign=True)} ({verdict(d)})" for k, d in odd.items())
        out += [f"{e['name']}: IoU at 5 not surely below that at 1: {told}"] if odd else []
    return out


def show(found: Sequence[float | None], *, sign: bool = False) -> str:
    """`0.61 [0.55, 0.66]`."""
    value, lo, hi = found
    form = "{:+.2f}" if sign else "{:.2f}"
    text = form.format(value)
    return text if lo is None or hi is None else f"{text} [{form.format(lo)}, {form.format(hi)}]"


def markdown(rows: Sequence[Row], table: Sequence[dict[str, Any]], typed: str) -> str:
    """The table for people: IoU against ground truth with intervals; last column: against the clean answer."""
    counts = {part: sum(row["image"].startswith(part) for row in rows) for part in IMAGES}
    prompts = {kind: sum(k == kind for row in rows for k in row["kinds"]) for kind in KINDS}
    weights = resamples(len(rows), seed=0)
    start = []
    for kind in KINDS:
        pairs = [(v, n) for n, r in enumerate(rows) for v, k in zip(r["before"], r["kinds"], strict=True) if k == kind]
        sums = image_sums([v for v, _ in pairs], [n for _, n in pairs], len(rows))
        count = image_sums([1.0] * len(pairs), [n for _, n in pairs], len(rows))
        start.append(f"{kind} {show(span(mean_interval(sums, count, weights)))}")
    lines = [
        f"{' + '.join(f'{n} {p}' for p, n in counts.items())} photographs, {prompts['point']} points and "
        f"{prompts['box']} boxes, lab-b. On the clean photographs, against ground truth: {', '.join(start)}. "
        f"Mean IoU [95 % interval]; printed by `{typed}`.",
        "",
        "| corruption | PSNR 1 / 2 / 3 / 4 / 5 (dB) | box 1 | box 5 | point 1 | point 5 | to clean 5 |",
        "|---|---|---|---|---|---|---|",
    ]
    for e in table:
        cells = [show(e["iou"][f"{kind}/truth"][s]) for kind in ("box", "point") for s in ("1", "5")]
        stable = ", ".join(f"{e['iou'][f'{kind}/clean']['5'][0]:.2f}" for kind in ("box", "point"))
        levels = " / ".join(f"{v:.1f}" for v in e["psnr"])
        lines.append(f"| {e['name']} | {levels} | " + " | ".join([*cells, stable]) + " |")
    odd = exceptions(table)
    lines += ["", f"Exceptions ({len(odd)}):" if odd else "No exception.", *(f"- {line}" for line in odd)]
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/eval"))
    parser.add_argument("--images", type=int, nargs=2, default=list(IMAGES.values()), help=" and ".join(IMAGES))
    parser.add_argument("--only", nargs="*", metavar="NAME", help="these corruptions (every one)")
    parser.add_argument("--model", default="lab-b")
    parser.add_argument("--work", type=Path, default=Path("build/corruption-iou.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/corruption_iou.json"))
    parser.add_argument("--docs", type=Path, default=None, help="page whose table between the markers is replaced")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    segmenter, wanted = load(args.model, device="cpu"), {name: made_of(name) for name in args.only or names()}
    done = seen(args.work, segmenter.fingerprint())
    sets = {part: drawn(args.data / part, count) for part, count in zip(IMAGES, args.images, strict=True)}
    todo = [(part, i) for part in sets for i in range(len(sets[part]))]
    todo.sort(key=lambda t: (t[1] + 1) / len(sets[t[0]]))  # at one pace, so that a run that is stopped has some of each
    args.work.parent.mkdir(parents=True, exist_ok=True)
    for part, i in todo:
        for row in look(segmenter, part, sets[part][i], wanted, done):
            done[row["image"], row["corruption"], row["bytes"]] = row
            with args.work.open("a") as file:
                file.write(json.dumps(row) + "\n")
        print(f"{part}/{sets[part].ids[i]}", flush=True)
    images = [f"{part}/{sets[part].ids[i]}" for part, i in todo]
    found = {name: [done[image, name, made] for image in images] for name, made in wanted.items()}
    table = summary(found)
    rows = next(iter(found.values()))
    usual = args.images == list(IMAGES.values())
    typed = COMMAND if usual else f"{COMMAND} --images {' '.join(map(str, args.images))}"
    text = markdown(rows, table, typed)
    print(text)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    result = {"command": typed, "images": len(rows), "exceptions": exceptions(table), "rows": table}
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    if args.docs:
        fill(args.docs, MARKER, text)


if __name__ == "__main__":
    main()
