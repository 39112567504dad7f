"""Pack pool/ into one small file that the training recipe reads on any machine: `python training/pack.py POOL OUT.zip`.

Images become WebP with the longest side `SIDE`; every annotation becomes one or more 8-bit instance maps of the same
size (0 = nothing, 1.. = objects), because a promptable model is taught objects, not classes:
  voc, camvid   connected components of each class (255 ignored)     bsds   one map per annotator, as drawn
  ecssd         the salient object and, as object 2, the rest         coco_panoptic   segments as annotated
  coco_mval     the object                                            ccp    parts by component, and whole person + rest
  every image   one further map of graph-based regions (Felzenszwalb & Huttenlocher, IJCV 2004): pseudo-objects that
                teach the encoder where colour and texture change. They are marked `pseudo` and drawn less often.
Never commit the packed file: it holds photographs that may not be passed on.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

SIDE = 240
QUALITY = 72
IGNORE = 255
SMALLEST = 0.002  # objects under this share of the image are dropped: a 48-token-wide map cannot show them

Map = NDArray[np.integer[Any]]


def components(labels: Map, *, skip: tuple[int, ...] = (0, 255)) -> Map:
    """Label map HxW of classes to instance map: connected components of each class, largest first, at most 254."""
    parts: list[tuple[int, NDArray[np.bool_]]] = []
    for value in np.unique(labels):
        if int(value) in skip:
            continue
        found, count = ndimage.label(labels == value, structure=np.ones((3, 3)))
        parts += [(int(np.sum(found == i)), found == i) for i in range(1, count + 1)]
    out = np.zeros(labels.shape, dtype=np.uint8)
    big = sorted((p for p in parts if p[0] >= SMALLEST * labels.size), key=lambda p: -p[0])
    for index, (_, part) in enumerate(big[:254], start=1):
        out[part] = index
    out[labels == IGNORE] = IGNORE  # neither inside nor outside: the loss skips these pixels
    return out


def relabel(labels: Map) -> Map:
    """Consecutive ids 1.. for the ids that are large enough; id 0 stays nothing."""
    out = np.zeros(labels.shape, dtype=np.uint8)
    ids, counts = np.unique(labels[labels > 0], return_counts=True)
    keep = ids[(counts >= SMALLEST * labels.size)][:254]
    for index, value in enumerate(keep, start=1):
        out[labels == value] = index
    return out


def figure_and_rest(labels: Map) -> Map:
    """Foreground as object 1 and what is left as object 2: background is a region people click on, too."""
    return np.where(labels > 0, 1, 2).astype(np.uint8)


def read_map(path: Path, size: tuple[int, int]) -> Map:
    """Mask PNG at the packed size (nearest neighbour)."""
    return np.asarray(Image.open(path).resize(size, Image.Resampling.NEAREST))


def maps_of(group: str, image: Path, size: tuple[int, int]) -> list[Map]:
    """Every instance map that the annotation of this image gives, at the packed size."""
    own = [image.with_suffix(".png")] + [image.with_name(f"{image.stem}_{k}.png") for k in range(3)]
    files = [p for p in own if p.exists()]
    raw = [read_map(p, size) for p in files]
    if group in ("voc", "camvid"):
        return [components(m) for m in raw]
    if group == "ecssd":
        return [figure_and_rest(m) for m in raw]
    if group == "ccp":
        return [components(m) for m in raw] + [figure_and_rest(m) for m in raw]
    return [relabel(m) for m in raw]  # bsds, coco_panoptic, coco_mval


def pseudo_map(pixels: NDArray[np.uint8]) -> Map:
    """Graph-based regions of the image; scale is drawn from its content hash so that coarse and fine both occur."""
    from skimage.segmentation import felzenszwalb

    scale = (150, 300, 600)[int(pixels.sum()) % 3]
    found = felzenszwalb(pixels, scale=scale, sigma=0.8, min_size=int(0.008 * pixels.shape[0] * pixels.shape[1]))
    return relabel(found + 1)


def pack_one(task: tuple[str, str]) -> tuple[bytes, list[bytes], dict[str, Any]]:
    """WebP bytes, map PNG bytes and the index entry of one image."""
    group, name = task
    path = Path(name)
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    factor = SIDE / max(picture.size)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    picture = picture.resize(size, Image.Resampling.BILINEAR)
    maps = maps_of(group, path, size)
    kinds = ["object"] * len(maps) + ["pseudo"]
    maps.append(pseudo_map(np.asarray(picture)))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=QUALITY, method=4)
    blobs = []
    for m in maps:
        out = io.BytesIO()
        Image.fromarray(m.astype(np.uint8)).save(out, "PNG", optimize=True)
        blobs.append(out.getvalue())
    return buffer.getvalue(), blobs, {"set": group, "name": path.stem, "size": [size[1], size[0]], "maps": kinds}


def main() -> None:
    """Command line: POOL OUT [--workers N]."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int, default=4)
    args = parser.parse_args()
    tasks = [(d.name, str(p)) for d in sorted(args.pool.iterdir()) if d.is_dir() for p in sorted(d.glob("*.webp"))]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    index: list[dict[str, Any]] = []
    with multiprocessing.Pool(args.workers) as workers, zipfile.ZipFile(args.out, "w") as archive:
        for number, (image, maps, entry) in enumerate(workers.imap(pack_one, tasks, chunksize=16)):
            archive.writestr(f"{number:05d}.webp", image)
            for k, blob in enumerate(maps):
                archive.writestr(f"{number:05d}_{k}.png", blob)
            index.append(entry)
        archive.writestr("index.json", json.dumps(index))
    print(f"{len(index)} images, {args.out.stat().st_size / 2**20:.1f} MiB in {args.out}")


if __name__ == "__main__":
    main()
