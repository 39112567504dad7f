"""The weather tables: what night, rain, snow, fog and drops on the lens do to the lab models, and real weather beside.

    python benchmarks/weather_table.py --jobs 4

Studies `weather` (camvid720, acdc_weather) and `texture` (camvid720) on lab-b, with lab-h asked the same; --limit
images of camvid720, evenly spaced, and all of acdc_weather, which has 5 to 10 of a condition. Each is a run of its own
below --work: it can be stopped and typed again, and --jobs of them run side by side. Writes every table as JSON
(--out), the short ones between the markers of a page (--page), and the page's figure beside it. --collect tabulates
what is finished and runs nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

# Before torch is imported: threads that spin while they wait starve the jobs beside them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from pages import fill
from side_by_side import run_all

from redsam.data import open_data
from redsam.models import load
from redsam.studies import study
from redsam.studies.tables import cell as words
from redsam.studies.weather import PUBLISHED

MODELS = ("lab-b", "lab-h")
LIMIT, TEXTURE_LIMIT = 6, 4
# Published: a 32 x 32 grid, 0.88 and 0.95; lab models score hardly a mask that high.
FIELDS: Mapping[str, Mapping[str, Any]] = {"weather": {"grid": 16, "least_iou": 0.3, "least_stability": 0.4}}
MARKER = "weather"
COMMAND = "python benchmarks/weather_table.py"
DASH = "\N{EN DASH}"

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A study on a set. limit: images of it, None for all."""

    name: str
    part: str
    limit: int | None

    def __str__(self) -> str:
        return f"{self.name} {self.part}"

    def folder(self, work: Path) -> Path:
        """Where it runs; another number of images is another run."""
        return work / f"{self.name}-{self.part}-{self.limit or 'all'}"


def jobs(limit: int, texture_limit: int) -> list[Job]:
    """What runs, in this order."""
    return [
        Job(name="weather", part="camvid720", limit=limit),
        Job(name="weather", part="acdc_weather", limit=None),
        Job(name="texture", part="camvid720", limit=texture_limit),
    ]


def work(job: Job, args: argparse.Namespace) -> None:
    """One job in a process of its own."""
    first, *others = [load(name, device=args.device) for name in args.models]
    data = open_data(args.data / job.part)
    study(job.name, **FIELDS.get(job.name, {})).run(
        first, data, victims=others, out=job.folder(args.work), limit=job.limit
    )


def collect(todo: Sequence[Job], args: argparse.Namespace) -> list[Row]:
    """The findings of the jobs that are finished."""
    found = []
    for job in todo:
        path = job.folder(args.work) / "study.json"
        if path.is_file():
            told = json.loads(path.read_text())
            found.append(
                {"name": job.name, "part": job.part, **{k: told[k] for k in ("study", "data", "tables", "notes")}}
            )
    return found


# --- the page --------------------------------------------------------------------------------------------------------
def rows_of(found: Sequence[Row], name: str, title: str, **keys: Any) -> list[Row]:
    """Measured rows of the tables of one study whose title begins so, each with its set under "data"."""
    return [
        row | {"data": one["part"]}
        for one in found
        if one["name"] == name
        for table in one["tables"]
        if table["title"].startswith(title)
        for row in table["rows"]
        if row["origin"] == "measured" and all(row.get(k) == v for k, v in keys.items())
    ]


def pivot(
    rows: Sequence[Row],
    down: Sequence[str],
    across: Sequence[str],
    text: Callable[[Row], str],
    *,
    more: Row | None = None,
) -> list[str]:
    """A pipe table: one line for each combination of `down`, one column for each of `across`, in the order of the rows.
    more: {heading: {first of down: text}} columns in front."""
    if not rows:
        return ["Not run.", ""]
    lines = list(dict.fromkeys(tuple(r[k] for k in down) for r in rows))
    columns = list(dict.fromkeys(tuple(r[k] for k in across) for r in rows))
    place = {(tuple(r[k] for k in down), tuple(r[k] for k in across)): r for r in rows}
    extra = more or {}
    head = [*down, *extra, *(", ".join(map(str, c)) for c in columns)]
    out = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for line in lines:
        cells = [text(place[line, c]) if (line, c) in place else DASH for c in columns]
        out.append("| " + " | ".join([*map(str, line), *(v.get(line[0], DASH) for v in extra.values()), *cells]) + " |")
    return [*out, ""]


def counts(rows: Iterable[Row]) -> str:
    """`n: camvid720 16 images, ...`, the most of each set."""
    most: dict[str, tuple[int, int]] = {}
    for r in rows:
        most[r["data"]] = max(most.get(r["data"], (0, 0)), (r["n_images"], r.get("n_prompts", 0)))
    return "; ".join(f"{d}: {i} images" + (f", {p} prompts" if p else "") for d, (i, p) in most.items()) or "none"


def page(found: Sequence[Row], wrong: Sequence[str], figure: str) -> str:
    """The tables for people."""
    stable = rows_of(found, "weather", "Stability")
    counted = rows_of(found, "weather", "How many")
    near = rows_of(found, "weather", "Neighbours", asked="red-teaming")
    truth = rows_of(found, "weather", "Against ground truth")
    real = rows_of(found, "weather", "Real weather")
    pairs = rows_of(found, "texture", "Texture minus colour")

    def miou(r: Row) -> str:
        return words(r, "miou")

    def lost(r: Row) -> str:
        if r["miou"] is None:
            return DASH
        return f"{r['miou']:.3f}" + ("" if r.get("loss") is None else f", lost {words(r, 'loss')}")

    def verdict(r: Row) -> str:
        return f"{words(r, 'difference')} {r['verdict']}" + (f" (n = {r['n_images']})" if r["dB"] else "")

    theirs = {"published, SAM-H": {name: f"{value:.3f}" for name, value in PUBLISHED.items()}}
    lines = ["### The paper's protocol: IoU with the clean answer", "", f"n: {counts(stable)}", ""]
    lines += pivot(stable, ("condition",), ("data", "victim"), miou, more=theirs)
    lines += ["### Which of its orderings hold", "", "Of 21 pairs of conditions: holds / reversed / undecided.", ""]
    lines += pivot(
        counted, ("asked",), ("data", "victim"), lambda r: f"{r['holds']} / {r['reversed']} / {r['undecided']}"
    )
    lines += ["Neighbours in the published order, the first minus the second:", ""]
    lines += pivot(near, ("first", "second"), ("data", "victim"), lambda r: f"{words(r, 'difference')} {r['verdict']}")
    lines += ["### Against ground truth", "", f"n: {counts(truth)}", ""]
    lines += pivot(truth, ("condition",), ("data", "victim", "prompt"), lost)
    lines += ["### Real weather", "", "acdc_weather; loss against the clear photographs.", ""]
    lines += pivot(real, ("weather", "how", "n_images"), ("victim", "prompt"), lost)
    lines += ["### Texture against colour at the same PSNR", ""]
    lines += [f"![mIoU at matched PSNR]({figure})", ""] if pairs else []
    lines += ["mIoU lost under the texture minus lost under the colour.", ""]
    lines += pivot(pairs, ("texture", "colour", "dB"), ("victim", "prompt"), verdict)
    if wrong:
        lines += ["Not run: " + "; ".join(wrong) + ".", ""]
    return "\n".join(lines).rstrip()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--data", type=Path, default=Path("../shared/data/eval"))
    parser.add_argument("--limit", type=int, default=LIMIT, help="images of camvid720")
    parser.add_argument("--texture-limit", type=int, default=TEXTURE_LIMIT, help="the same of the study texture")
    parser.add_argument("--only", nargs="*", default=(), help="studies and sets by name")
    parser.add_argument("--work", type=Path, default=Path("build/weather-table"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/weather.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/weather.md"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of all jobs together")
    parser.add_argument("--collect", action="store_true", help="tabulate what is finished and run nothing")
    args = parser.parse_args()
    everything = jobs(args.limit, args.texture_limit)
    todo = [j for j in everything if not args.only or {j.name, j.part} & set(args.only)]
    wrong = []
    if not args.collect:
        wrong = run_all(todo, partial(work, args=args), name=str, jobs=args.jobs, threads=args.threads)
    found = collect(everything, args)
    missing = [f"{j.name} on {j.part}" for j in everything if not (j.folder(args.work) / "study.json").is_file()]
    figure = args.page.with_name("weather-texture.svg")
    for job in everything:
        drawn = job.folder(args.work) / "texture.svg"
        if drawn.is_file():
            shutil.copyfile(drawn, figure)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    told = {"command": COMMAND, "models": args.models, "limit": args.limit, "studies": found, "not_run": missing}
    args.out.write_text(json.dumps(told, indent=1) + "\n")
    fill(args.page, MARKER, page(found, missing, figure.name))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
