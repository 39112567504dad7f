"""Images per second of every registered corruption on one core, against imagecorruptions and kornia where importable.

A bundled photograph, enlarged to the size asked for, is corrupted alone at severity 3, one thread; the median of the
CPU times of the repeats counts, after one run that is not counted (unless it took more than 5 s: then it alone counts).
CPU time of the process does not run while others have the core, but shares caches and memory with them: the JSON says
how many were waiting for a core, and ratios are of one run. A peer's column is empty where it has no such
corruption, says the exception where it has one that does not run, and the header says which peer is not installed.
Peers are timed on their own format (uint8 HxWx3 for imagecorruptions, float32 1x3xHxW for kornia), without conversions.
imagecorruptions scales no length with the image, so that its blurs are smaller at this size and its times flattered.

imagecorruptions 1.1.2 wants an environment of its own: `pkg_resources` (gone from setuptools 81), `np.float_` (gone
from NumPy 2) and the `multichannel` of skimage.filters.gaussian, which no scikit-image for Python 3.11 has: its blurs
get a `gaussian` that passes it on as today's `channel_axis`. Installed without its dependencies, since it asks for
opencv-python, which wants the libraries of a display:

    python3.11 -m venv build/peers
    build/peers/bin/pip install -e . "numpy<2" "scipy<1.15" "scikit-image==0.20.0" "opencv-python-headless<4.12" \
        "setuptools<81" kornia
    build/peers/bin/pip install --no-deps imagecorruptions==1.1.2
    build/peers/bin/python benchmarks/corruption_speed.py --out benchmarks/results/corruption_speed.json \
        --docs docs/corruptions.md

Without peers, or a few of them:

    python benchmarks/corruption_speed.py --only fog frost --side 256 --repeats 1
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch
from pages import fill
from rich.console import Console
from rich.table import Table
from torch import Tensor

from redsam.data import read_image
from redsam.data.demo import demo_root
from redsam.models.resample import resize
from redsam.registry import Entry, create, entries
from redsam.types import from_uint8, to_uint8

SEVERITY = 3
SLOW = 5.0  # seconds
MARKER = "speed"
# What imagecorruptions calls them, where that is not ours with underscores.
THEIR_NAMES = {"elastic": "elastic_transform", "jpeg": "jpeg_compression"}


def photograph(side: int) -> Tensor:
    """1x3xSxS on the lattice."""
    image = read_image(demo_root() / "coffee.jpg")[None]
    return from_uint8(to_uint8(resize(image, (side, side))))


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median CPU seconds of this process, after one run that warms caches; a slow one counts itself."""
    start = time.process_time()
    work()
    first = time.process_time() - start
    if first > SLOW:
        return first
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def peer(name: str) -> Any:
    """The module, or None. Whatever an old package raises while it is imported means that it cannot be used here."""
    try:
        module = importlib.import_module(name)
        if name == "imagecorruptions":
            theirs = importlib.import_module("imagecorruptions.corruptions")
            theirs.gaussian = renamed(theirs.gaussian)  # type: ignore[attr-defined]
        return module
    except Exception as error:
        print(f"{name}: not importable ({type(error).__name__}: {error})", file=sys.stderr)
        return None


def renamed(gaussian: Callable[..., Any]) -> Callable[..., Any]:
    """skimage.filters.gaussian that still takes `multichannel`."""

    def called(image: Any, sigma: float, *, multichannel: bool = False, **rest: Any) -> Any:
        return gaussian(image, sigma=sigma, channel_axis=-1 if multichannel else None, **rest)

    return called


def of_imagecorruptions(module: Any, entry: Entry, image: Tensor) -> Callable[[], object] | None:
    """The same corruption there, or None."""
    name = THEIR_NAMES.get(entry.name, entry.name.replace("-", "_"))
    if module is None or name not in module.get_corruption_names("all"):
        return None
    pixels = to_uint8(image[0]).permute(1, 2, 0).contiguous().numpy()
    return lambda: module.corrupt(pixels, corruption_name=name, severity=SEVERITY)


def of_kornia(module: Any, entry: Entry, image: Tensor) -> Callable[[], object] | None:
    """The nearest augmentation there with strengths of the same order, or None."""
    if module is None:
        return None
    there = importlib.import_module("kornia.augmentation")
    made: dict[str, Callable[[], Any]] = {
        "gaussian-noise": lambda: there.RandomGaussianNoise(std=0.18, p=1.0),
        "impulse-noise": lambda: there.RandomSaltAndPepperNoise(amount=0.09, p=1.0),
        "motion-blur": lambda: there.RandomMotionBlur(kernel_size=137, angle=45.0, direction=1.0, p=1.0),
        "brightness": lambda: there.RandomBrightness(brightness=(1.3, 1.3), p=1.0),
        "contrast": lambda: there.RandomContrast(contrast=(0.2, 0.2), p=1.0),
        "elastic": lambda: there.RandomElasticTransform(kernel_size=(63, 63), sigma=(11.0, 11.0), p=1.0),
        "jpeg": lambda: there.RandomJPEG(jpeg_quality=(15.0, 15.0), p=1.0),
        "snow": lambda: there.RandomSnow(p=1.0),
        "rain": lambda: there.RandomRain(p=1.0),
    }
    if entry.name not in made:
        return None
    augment = made[entry.name]()
    return lambda: augment(image)


def rate(work: Callable[[], object] | None, repeats: int) -> float | str | None:
    """Images per second; the exception of a peer that does not run."""
    if work is None:
        return None
    try:
        return round(1 / max(seconds(work, repeats), 1e-6), 3)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def measure(only: list[str], side: int, repeats: int) -> dict[str, Any]:
    """One row for each corruption, and what is needed to read them."""
    torch.set_num_threads(1)
    image = photograph(side)
    peers = {name: peer(name) for name in ("imagecorruptions", "kornia")}
    rows: list[dict[str, Any]] = []
    for entry in entries("corruption"):
        if (only and entry.name not in only) or entry.meta.get("needs") or entry.name == "matched":  # another, mixed
            continue
        ours = create("corruption", entry.name, severity=SEVERITY)
        taken = seconds(lambda ours=ours: ours.run(image), repeats)  # type: ignore[misc]
        rows.append(
            {
                "name": entry.name,
                "redsam": round(1 / taken, 3),
                "imagecorruptions": rate(of_imagecorruptions(peers["imagecorruptions"], entry, image), repeats),
                "kornia": rate(of_kornia(peers["kornia"], entry, image), repeats),
            }
        )
    versions = {name: importlib.metadata.version(name) if m else None for name, m in peers.items()}
    return {
        "side": side, "severity": SEVERITY, "threads": 1, "repeats": repeats, "unit": "images per CPU second",
        "torch": torch.__version__, "numpy": numpy.__version__, "peers": versions, "cores": os.cpu_count(),
        "load": round(os.getloadavg()[1], 1), "rows": rows,
    }  # fmt: skip


def show(result: dict[str, Any]) -> None:
    """The table."""
    columns = ["redsam", *result["peers"]]
    table = Table(title=f"images per second at {result['side']} x {result['side']}, severity {SEVERITY}, one core")
    table.add_column("corruption", no_wrap=True)
    for column in columns:
        absent = column != "redsam" and result["peers"][column] is None
        table.add_column(f"{column}\n(not installed)" if absent else column, justify="right")
    for row in result["rows"]:
        cells = [row[c] for c in columns]
        table.add_row(row["name"], *("" if c is None else f"{c:.2f}" if isinstance(c, float) else c for c in cells))
    Console().print(table)


def times(ratio: float) -> str:
    """`12`, `1.3`, `0.04`: two digits that count."""
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}" if ratio >= 1 else f"{ratio:.2g}"


def markdown(result: dict[str, Any]) -> str:
    """The table for people, with how many times as fast redsam is."""
    peers = list(result["peers"])
    given = [f"{n} {v}" if v else f"{n} not installed" for n, v in result["peers"].items()]
    lines = [
        f"Images per second of CPU time, {result['side']} x {result['side']}, severity {result['severity']}, one "
        f"thread (torch {result['torch']}, {', '.join(given)}); in brackets how many times as fast redsam is. Load "
        f"average during the run: {result['load']} on {result['cores']} cores.",
        "",
        "| corruption | redsam | " + " | ".join(peers) + " |",
        "|---" * (2 + len(peers)) + "|",
    ]
    faster = {p: [row["redsam"] / row[p] for row in result["rows"] if isinstance(row[p], float)] for p in peers}
    for row in result["rows"]:
        cells = [
            "" if row[p] is None else f"{row[p]:.2f} ({times(row['redsam'] / row[p])})" if type(row[p]) is float else
            f"`{row[p]}`"
            for p in peers
        ]  # fmt: skip
        lines.append(f"| {row['name']} | {row['redsam']:.2f} | " + " | ".join(cells) + " |")
    whole = sum(1 / row["redsam"] for row in result["rows"])
    lines += ["", f"The whole set of {len(result['rows'])}: {whole:.1f} CPU s an image."]
    for p, ratios in faster.items():
        if ratios:
            quicker = sum(v > 1 for v in ratios)
            lines[-1] += (
                f" Against {p} redsam is faster in {quicker} of {len(ratios)}, {times(statistics.median(ratios))} "
                "times as fast in the median."
            )
    return "\n".join(lines)


def main() -> int:
    """Print the table; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="these corruptions")
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--docs", type=Path, help="page whose table between the markers is replaced")
    given = parser.parse_args()
    result = measure(given.only, given.side, given.repeats)
    show(result)
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if given.docs:
        fill(given.docs, MARKER, markdown(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
