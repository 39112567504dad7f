"""The table of purifiers on lab-b: clean cost, static gain, adaptive gain, seconds an image.

    python benchmarks/purifiers_table.py --data ../shared/data/eval --jobs 4

PGD-20 at 8/255 on 20 images each of bsds_test and coco_panoptic_val, up to 4 objects of at least 1 % of the image, one
point and the exact box, IoU against ground truth on the delivered PNG (study `defence`). static: images crafted on the
undefended model; transfer: on lab2; adaptive: through the purifier, BPDA where it has no gradient, means over --eot
draws where it is random. Each (set, purifier) is a study of its own below --work, so it can be stopped and typed again,
and --jobs of them run side by side; what is crafted without a defence is made once for each set, by the first. Writes
the rows as JSON (--out) and the table between the markers of a page (--page).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

# Before torch is imported: threads that spin while they wait starve the jobs beside them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from pages import fill, typed

from redsam.data import open_data
from redsam.models import load
from redsam.studies import study
from redsam.studies.defence import ADAPTIVE
from redsam.studies.tables import cell

SETS = ("bsds_test", "coco_panoptic_val")
IMAGES, OBJECTS, STEPS, DRAWS = 20, 4, 20, 4
PURIFIERS = (
    "jpeg", "jpeg:quality=30", "bit-depth:bits=3", "gaussian", "gaussian:sigma=2", "median", "median:size=5",
    "bilateral:space=1.0", "nlm:search=5,strength=10", "noise", "resize-pad", "resize-pad:least=0.5,most=1.0",
    "tv:steps=10", "jpeg:quality=50|median",
)  # fmt: skip
# At the longest side of lab-b's frame, which is all that it sees, in few steps. Their adaptive attack differentiates
# through the diffusion: 5 to 8 s a draw of one core, 8 to 15 core hours a purifier for the whole table; without it
# about ten minutes.
DIFFUSION = ("diffpure:large=residual,t=50,steps=4", "zip:large=residual,start=300,steps=6")
COLUMNS = ("data", "defense", "prompt", "clean", "cost", "static", "static_gain", "transfer", "adaptive",
           "adaptive_gain", "seconds", "n_images")  # fmt: skip
HEADS = ("set", "purifier", "prompt", "clean mIoU", "clean cost", "static", "static gain", "transfer", "adaptive",
         "adaptive gain", "s / image", "n")  # fmt: skip
MARKER = "purifiers"
COMMAND = "python benchmarks/purifiers_table.py"


def job(part: str, purifier: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """One study; its rows."""
    torch.set_num_threads(max(1, args.threads // args.jobs))
    out = args.work / part / re.sub(r"[^a-z0-9]+", "-", purifier)
    _begin_with(args.work / part / re.sub(r"[^a-z0-9]+", "-", args.purifiers[0]), out)
    asked = study(
        "defence", defenses=[purifier], steps=args.steps, max_objects=OBJECTS, eot=args.eot,
        adaptive=not args.static and (purifier not in DIFFUSION or args.diffusion != "static"),
    )  # fmt: skip
    found = asked.run(
        load(args.model, device=args.device),
        open_data(args.data / part),
        out=out,
        victims=[load(name, device=args.device) for name in args.sources],
        limit=args.limit,
        batch=args.batch,
    )
    return [{**row, "data": part} for table in found.tables for row in table.rows]


def _begin_with(first: Path, out: Path) -> None:
    """The cells of the first study, so that what needs no defence is not made again. Pictures are linked."""
    if out.exists() or not first.exists() or first == out:
        return

    def take(source: str, target: str) -> None:
        if source.endswith(".png"):
            os.link(source, target)
        else:
            shutil.copy2(source, target)

    half = out.with_name(out.name + ".half")
    shutil.rmtree(half, ignore_errors=True)
    shutil.copytree(first, half, copy_function=take)
    half.rename(out)


def markdown(rows: Sequence[dict[str, Any]], args: argparse.Namespace) -> str:
    """The table for people."""
    lines = [
        f"{args.model} behind purifiers: PGD-{args.steps} at 8/255, {args.limit} images a set, up to {OBJECTS} objects "
        "each, mean IoU against ground truth [95 % interval]; gains over the undefended model under the same attack, "
        f"paired by image; transfer from {', '.join(args.sources) or 'nowhere'}; printed by "
        f"`{command(args)}`.", "",
        "| " + " | ".join(HEADS) + " |", "|" + "---|" * len(HEADS),
    ]  # fmt: skip
    seen = set()
    for row in rows:
        key = (row["data"], row["defense"], row["prompt"])
        if key not in seen:  # the undefended rows stand in every study
            lines.append("| " + " | ".join(cell(row, c) for c in COLUMNS) + " |")
        seen.add(key)
    if any(row["judged"] != ADAPTIVE for row in rows):
        lines += ["", "A purifier without an adaptive number was not attacked by anyone who knows it: no evidence."]
    return "\n".join(lines)


def command(args: argparse.Namespace) -> str:
    """The command whose table this is; how many images is always said."""
    usual = {"limit": None, "steps": STEPS, "eot": DRAWS, "diffusion": None, "marker": MARKER}
    return f"{typed(' '.join([COMMAND, *args.asked]), args, usual)} --page docs/defences.md"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("asked", nargs="*", metavar="PURIFIER", help="as text (default: all of the table)")
    parser.add_argument("--diffusion", choices=("static", "adaptive"), default=None,
                        help="the diffusion purifiers as well; adaptive takes hours for each")  # fmt: skip
    parser.add_argument("--model", default="lab-b")
    parser.add_argument("--sources", nargs="*", default=["lab2"], help="models that transfer images are crafted on")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/eval"))
    parser.add_argument("--limit", type=int, default=IMAGES, help="images a set")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--eot", type=int, default=DRAWS, help="draws of random purifiers")
    parser.add_argument("--static", action="store_true", help="no adaptive attack; the table says so")
    parser.add_argument("--work", type=Path, default=Path("build/purifiers-table"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/purifiers_table.json"))
    parser.add_argument("--page", type=Path, default=None)
    parser.add_argument("--marker", default=MARKER, help="of the place in the page")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of all jobs together")
    parser.add_argument("--batch", type=int, default=1)
    args = parser.parse_args()
    args.purifiers = args.asked or [*PURIFIERS, *(DIFFUSION if args.diffusion else ())]
    first = [(part, args.purifiers[0]) for part in SETS]
    rest = [(part, name) for name in args.purifiers[1:] for part in SETS]
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(args.jobs) as pool:
        for tasks in (first, rest):  # the first make what the rest begin with
            if tasks:
                for found in pool.map(job, *zip(*tasks, strict=True), [args] * len(tasks)):
                    rows += found
    rows.sort(key=lambda r: (SETS.index(r["data"]), r["prompt"]))
    text = markdown(rows, args)
    print(text)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    told = {k: getattr(args, k) for k in ("model", "sources", "limit", "steps", "eot")}
    args.out.write_text(json.dumps({"settings": told, "rows": rows}, indent=1) + "\n")
    if args.page:
        fill(args.page, args.marker, text)


if __name__ == "__main__":
    main()
