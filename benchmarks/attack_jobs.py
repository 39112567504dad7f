"""Jobs of the attack table: what runs on what, as plain data, each into a folder of its own.

A finished job leaves fields.json beside its records: which cell holds what, so that tables and claims are computed from
the records alone.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claims import BENCHMARK
from evidence import Field

from redsam import registry
from redsam.bench import Trial, matrix
from redsam.bench.files import read_json, write_json
from redsam.bench.presets import linf
from redsam.bench.spec import JsonDict
from redsam.bench.store import read_records
from redsam.bench.summary import latest
from redsam.data import open_data
from redsam.errors import InputError
from redsam.models.base import Segmenter
from redsam.studies import study
from redsam.studies.figa_sweep import FigaSweep
from redsam.studies.rga_transfer import RgaTransfer

SETS = ("bsds_test", "coco_panoptic_val")
TABLE = "rga-transfer"
CLEAN = "clean"  # the victims' answers to the clean images, made once and shared by every job of the table
# Options that are not the attack's own, and why.
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    # Copies of the image a step, published 20, 5 and 5. Every copy costs a whole gradient, so that as published these
    # three would cost as much as twelve other attacks; their runs stand last.
    "vmifgsm": {"samples": 2},
    "sinifgsm": {"copies": 2},
    "t-ra": {"samples": 1},
    # Published grid 64 (4096 prompts an image) and thresholds 0.88 and 0.95, above which no lab model scores any mask.
    "rga": {"grid": 16, "pred_iou_thresh": 0.3, "stability_score_thresh": 0.4},
}
# Tested are 5 points and 3 boxes on each of so many masks of an image. Published: the first 10, for images of SA-1B,
# which have a hundred. The first 4 are those that attacks on masks aim at; four victims' answers to them cost less than
# half as much, and an interval over images hardly sees the rest.
PROMPTING = {"max_objects": 4}
# Score attacks on the source: looks at it that an image may cost. Published: 10,000 (SimBA, Square), 20 (EBAD).
QUERIES = {"simba": 1000, "square": 500, "ebad": 20}
MATRIX = {"max_objects": 4}  # cross-prompt-matrix: of an image
# Images a set of the claims that spend most on an image: 1000 looks at each, 100 gradients of each of three surrogates.
IMAGES = {"simba": 5, "square": 5, "ebad": 5}
CLAIMED = (*BENCHMARK, "rga")  # rows of the table that a claim reads
LAST = ("vmifgsm", "sinifgsm", "t-ra")
ABLATION = ("rga", "rga, no map")  # the variants that a claim reads, on the source alone
CLAIMS = ("figa-sweep", "rga-ablation", "cross-prompt-matrix", *QUERIES)
STEPS = 40  # of every attack that has steps, in all of these studies but figa-sweep
PROMPT = ("kind", "iou_clean_gt", "iou_adv_gt", "iou_adv_clean", "l0")
FGSM_STAR_STEPS = 25  # at most: its goal's own stop rule


@dataclass(frozen=True, kw_only=True)
class Job:
    """run: study, "score" or "clean". name: attack of the table, or the run's own. part: image set. limit: images."""

    run: str
    name: str
    part: str
    limit: int

    def __str__(self) -> str:
        return f"{self.run} {self.name} {self.part}"

    def folder(self, work: Path) -> Path:
        """Where it is done."""
        return work / self.run / self.name / self.part

    @property
    def passes(self) -> tuple[int, int]:
        """(gradients, forwards besides) on the source (EBAD: on each surrogate) at most, of all images; the looks that
        score an image are not among them."""
        each: dict[str, tuple[int, int]] = {
            CLEAN: (0, 0),
            "figa-sweep": ((len(FigaSweep().ks) - 1) * (FigaSweep().figa_steps or 0) + FGSM_STAR_STEPS, 0),
            "rga-ablation": (len(ABLATION) * gradients("rga"), 0),
            "cross-prompt-matrix": ((1 + 4) * STEPS, 0),
        }
        found = each.get(self.name) or (gradients(self.name), QUERIES.get(self.name, 0))
        return self.limit * found[0], self.limit * found[1]


def gradients(name: str) -> int:
    """Of an attack in the table, on one image, by what the registry says it costs."""
    options = {"queries": QUERIES[name]} if name in QUERIES else {"steps": STEPS, **OPTIONS.get(name, {})}
    attack = registry.create("attack", name, **options)
    cost = str(registry.get("attack", name).meta["cost"])
    if " gradient" not in cost:
        return 0
    terms = cost.split(" gradient")[0].split(", ")[-1].removesuffix(" surrogate").replace(" x ", " * ")
    return int(eval(re.sub(r"[a-z_]+", lambda m: str(getattr(attack, m[0])), terms), {"__builtins__": {}}))


def jobs(limit: int, claim_limit: int, only: Sequence[str] = ()) -> list[Job]:
    """All: what others wait for, then what claims are about, then the rest; the longest of each first, so that none
    runs alone at the end. only: names of some."""
    table = [Job(run=TABLE, name=name, part=s, limit=limit) for name in RgaTransfer().attacks for s in SETS]
    runs = [("score" if name in QUERIES else name, name, min(claim_limit, IMAGES.get(name, limit))) for name in CLAIMS]
    claims = [Job(run=run, name=name, part=s, limit=count) for run, name, count in runs for s in SETS]
    chosen = [job for job in table + claims if not only or job.name in only]
    clean = [Job(run=CLEAN, name=CLEAN, part=s, limit=limit) for s in SETS if any(j.run == TABLE for j in chosen)]

    def order(job: Job) -> tuple[int, int]:
        rank = 2 if job.name in LAST else int(job.run == TABLE and job.name not in CLAIMED)
        return rank, -(3 * job.passes[0] + job.passes[1])

    return clean + sorted(chosen, key=order)


def carry_out(
    job: Job, source: Segmenter, victims: Sequence[Segmenter], *, data: Path, work: Path, batch: int = 1
) -> None:
    """Run a job, or what is left of it. Raises InputError for what cannot run."""
    out, dataset = job.folder(work), open_data(data / job.part)
    if job.run == TABLE:
        share(Job(run=CLEAN, name=CLEAN, part=job.part, limit=job.limit).folder(work), out)
    if job.run == "score":
        found = list(_score(job, source, victims, dataset=dataset, out=out, batch=batch))
    else:
        found = list(_study(job, source, victims, dataset=dataset, out=out, batch=batch))
    write_json(out / "fields.json", {"run": job.run, "set": job.part, "fields": found})


def share(made: Path, out: Path) -> None:
    """Put finished clean cells and their images where a run looks for its own; finished files are never written to, so
    links do."""
    for done in made.glob("records/*/DONE"):
        there = out / "records" / done.parent.name
        if not (there / "DONE").exists():
            shutil.rmtree(there, ignore_errors=True)
            part = there.with_name(f".{there.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(done.parent, part, copy_function=os.link)
            part.rename(there)
    for image in made.glob("images/*.png"):
        there = out / "images" / image.name
        if not there.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            os.link(image, there)


def _study(
    job: Job, source: Segmenter, victims: Sequence[Segmenter], *, dataset: Any, out: Path, batch: int
) -> Iterator[JsonDict]:
    fields: dict[str, Any] = {"options": OPTIONS.get(job.name, {})}
    if job.run in (TABLE, CLEAN):
        fields |= {"attacks": (job.name,) if job.run == TABLE else (), "prompting": PROMPTING}
    elif job.run == "rga-ablation":
        fields = {"options": OPTIONS["rga"], "prompting": PROMPTING, "variants": ABLATION}
    elif job.run == "cross-prompt-matrix":
        fields |= MATRIX
    asked = study(TABLE if job.run == CLEAN else job.run, **fields)
    shown = victims if job.run in (TABLE, CLEAN) else ()
    findings = asked.run(source, dataset, out=out, victims=shown, limit=job.limit, batch=batch)
    rows = [row for table in findings.tables for row in table.rows if "cell" in row]
    for row in {row["cell"]: row for row in rows}.values():
        victim = Path(row.get("victim", source.name)).name
        yield {"attack": row["attack"], "victim": victim, "cell": row["cell"],
               "crafted": row.get("crafted", ""), "tested": row.get("tested", "")}  # fmt: skip


def _score(
    job: Job, source: Segmenter, victims: Sequence[Segmenter], *, dataset: Any, out: Path, batch: int
) -> Iterator[JsonDict]:
    """The box of one object an image, attacked alone, single mask, as in figa-sweep."""
    args: dict[str, Any] = {"queries": QUERIES[job.name]}
    if job.name == "ebad":
        if not victims:
            raise InputError("EBAD has no surrogate: no bundled model differs from the source.")
        args["surrogates"] = tuple(v.name for v in victims)  # by name, so that another set of them is another cell
    found = matrix(
        [source], [source], dataset, trials=[Trial(attack=job.name, args=args, threats=linf(8))], name="score",
        attacker_protocols=[("box", {"max_objects": 1})], out=out, select="single", joint=False, limit=job.limit,
        batch=batch,
    )  # fmt: skip
    for entry in found.entries:
        yield {"attack": entry.trial, "victim": Path(entry.victim).name, "cell": entry.cell.id,
               "crafted": "", "tested": ""}  # fmt: skip


def bank(work: Path) -> list[Field]:
    """Everything finished below `work`; both sets of images pooled."""
    pooled: dict[tuple[str, ...], dict[str, JsonDict]] = {}
    for path in sorted(work.glob("*/*/*/fields.json")):
        told = read_json(path)
        for f in told["fields"]:
            key = (told["run"], f["attack"], f["victim"], f["crafted"], f["tested"])
            records = latest(read_records(path.parent / "records" / f["cell"] / "samples.jsonl"))
            pooled.setdefault(key, {}).update({r["sample"]: r for r in (_short(r, told["set"]) for r in records)})
    return [
        Field(run=run, attack=attack, victim=victim, crafted=crafted, tested=tested, records=tuple(records.values()))
        for (run, attack, victim, crafted, tested), records in pooled.items()
    ]


def _short(record: JsonDict, part: str) -> JsonDict:
    """What tables and claims read; the masks of all records together would fill the memory."""
    prompts = [{name: p.get(name) for name in PROMPT} for p in record["prompts"]]
    return {"sample": f"{part}/{record['sample']}", "status": record["status"], "prompts": prompts}
