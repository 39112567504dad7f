"""Pack the part of pool/ that has class names: `python training/pack_text.py POOL text.zip [--workers N]`.

Each image becomes WebP with the longest side of pack.py and one 8-bit map of class names (0 nothing, 255 ignored, i =
names[i - 1] of index.json): voc, camvid and ccp as annotated; coco_mval, which holds one object a file with its class
in the file name, joined by photograph. `complete` says that every class of its set is marked on the image: only then
is a missing class known to be absent. `held_out` marks the photographs that train_text.py does not train on: those that
train.py held out of the lab models, too, so that starting from one of these shows no held-out photograph.
Never commit the packed file: it holds photographs that may not be passed on.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from names import VALUES
from pack import IGNORE, QUALITY, SIDE, Map, read_map
from PIL import Image

COMPLETE = ("voc", "camvid", "ccp")
Task = tuple[str, tuple[tuple[str, str], ...], dict[str, int]]  # set, (file, class name or ""), name to index
HELD_OUT, EVERY = 7, 40  # of each 40 images of pool/, in pack.py's order, the one with this remainder is held out


def class_of(stem: str) -> str:
    """`baseball bat03_000000123.webp` is a baseball bat."""
    return stem.split("_")[0].rstrip("0123456789")


def held_out(pool: Path) -> set[str]:
    """`SET/FILE STEM` of the images that neither train.py nor train_text.py trains on."""
    images = [p for d in sorted(pool.iterdir()) if d.is_dir() for p in sorted(d.glob("*.webp"))]
    return {f"{p.parent.name}/{p.stem}" for i, p in enumerate(images) if i % EVERY == HELD_OUT}


def tasks_of(pool: Path) -> tuple[list[tuple[str, tuple[tuple[str, str], ...]]], list[str]]:
    """What to pack (one photograph each) and the names, in a fixed order."""
    found: list[tuple[str, tuple[tuple[str, str], ...]]] = []
    for group in VALUES:
        found += [(group, ((str(p), ""),)) for p in sorted((pool / group).glob("*.webp"))]
    photographs: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for path in sorted((pool / "coco_mval").glob("*.webp")):
        photographs[path.stem.split("_")[-1]].append((str(path), class_of(path.stem)))
    found += [("coco_mval", tuple(files)) for _, files in sorted(photographs.items())]
    names = {n for values in VALUES.values() for n in values} | {n for _, files in found for _, n in files if n}
    return found, sorted(names)


def named_map(group: str, files: tuple[tuple[str, str], ...], size: tuple[int, int], index: dict[str, int]) -> Map:
    """Map of name indices of one photograph at (width, height)."""
    out = np.zeros((size[1], size[0]), dtype=np.uint8)
    for file, name in files:
        raw = read_map(Path(file).with_suffix(".png"), size)
        if name:
            out[raw > 0] = index[name]
            continue
        for value in np.unique(raw):
            if 1 <= int(value) <= len(VALUES[group]):
                out[raw == value] = index[VALUES[group][int(value) - 1]]
        if group == "voc":
            out[raw == IGNORE] = IGNORE
    return out


def pack_one(task: Task) -> tuple[bytes, bytes, dict[str, Any]]:
    """WebP bytes, PNG bytes and the index entry of one photograph."""
    group, files, index = task
    with Image.open(files[0][0]) as opened:
        picture = opened.convert("RGB")
    factor = SIDE / max(picture.size)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    named = named_map(group, files, size, index)
    image, plane = io.BytesIO(), io.BytesIO()
    picture.resize(size, Image.Resampling.BILINEAR).save(image, "WEBP", quality=QUALITY, method=4)
    Image.fromarray(named).save(plane, "PNG", optimize=True)
    entry = {"set": group, "size": [size[1], size[0]], "complete": group in COMPLETE}
    return image.getvalue(), plane.getvalue(), entry


def pack(pool: Path, out: Path, *, workers: int, limit: int | None = None) -> int:
    """Write the archive; limit: at most so many photographs, evenly spaced, for a try. Returns how many."""
    found, names = tasks_of(pool)
    if limit is not None and limit < len(found):
        found = [found[i * len(found) // limit] for i in range(limit)]
    index = {name: i for i, name in enumerate(names, 1)}
    out.parent.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    tasks = [(group, files, index) for group, files in found]
    kept = held_out(pool)
    with multiprocessing.Pool(workers) as team, zipfile.ZipFile(out, "w") as archive:
        for number, (image, plane, entry) in enumerate(team.imap(pack_one, tasks, chunksize=16)):
            archive.writestr(f"{number:05d}.webp", image)
            archive.writestr(f"{number:05d}.png", plane)
            group, files = found[number]
            entries.append(entry | {"held_out": any(f"{group}/{Path(file).stem}" in kept for file, _ in files)})
        archive.writestr("index.json", json.dumps({"names": names, "items": entries}))
    return len(entries)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--limit", type=int, default=None)
    args = parser.parse_args()
    count = pack(args.pool, args.out, workers=args.workers, limit=args.limit)
    print(f"{count} photographs, {args.out.stat().st_size / 2**20:.1f} MiB in {args.out}")


if __name__ == "__main__":
    main()
