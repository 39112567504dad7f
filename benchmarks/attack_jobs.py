"""Jobs of the attack table: what runs on what, as plain data, each into a folder of its own.

A finished job leaves fields.json beside its records: which cell holds what, so that tables and claims are computed from
the records alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from redsam.studies.rga_ablation import VARIANTS
from redsam.studies.rga_transfer import RgaTransfer

SETS = ("bsds_test", "coco_panoptic_val")
TABLE = "rga-transfer"
# Options that are not the attack's own, and why.
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "vmifgsm": {"samples": 5},  # published 20: 840 gradients an image, more than any three others together
    # Published grid 64 (4096 prompts an image) and thresholds 0.88 and 0.95, above which no lab model scores any mask.
    "rga": {"grid": 16, "pred_iou_thresh": 0.3, "stability_score_thresh": 0.4},
}
# Score attacks on the source: looks at it that an image may cost. Published: 10,000 (SimBA, Square), 20 (EBAD).
QUERIES = {"simba": 1000, "square": 1000, "ebad": 20}
MATRIX = {"max_objects": 4}  # cross-prompt-matrix: of an image
CLAIMS = ("figa-sweep", "rga-ablation", "cross-prompt-matrix", *QUERIES)
STEPS = 40  # of every attack that has steps, in all of these studies but figa-sweep
PROMPT = ("kind", "iou_clean_gt", "iou_adv_gt", "iou_adv_clean", "l0")
FIGA_STEPS = 25  # at most: its goal's own stop rule


@dataclass(frozen=True, kw_only=True)
class Job:
    """run: study, or "score". name: attack of the table, or the run's own. part: image set. limit: images of it."""

    run: str
    name: str
    part: str
    limit: int

    def folder(self, work: Path) -> Path:
        """Where it is done."""
        return work / self.run / self.name / self.part

    @property
    def passes(self) -> tuple[int, int]:
        """(gradients, forwards besides) on the source (EBAD: on each surrogate) at most, of all images; the looks that
        score an image are not among them."""
        each: dict[str, tuple[int, int]] = {
            "figa-sweep": (len(FigaSweep().ks) * FIGA_STEPS, 0),
            "rga-ablation": (len(VARIANTS) * gradients("rga"), 0),
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
    """All, the longest first, so that none runs alone at the end; only: names of some."""
    table = [Job(run=TABLE, name=name, part=s, limit=limit) for name in RgaTransfer().attacks for s in SETS]
    claims = [
        Job(run="score" if name in QUERIES else name, name=name, part=s, limit=claim_limit)
        for name in CLAIMS
        for s in SETS
    ]
    chosen = [job for job in table + claims if not only or job.name in only]
    return sorted(chosen, key=lambda job: -(3 * job.passes[0] + job.passes[1]))  # a gradient is about three forwards


def carry_out(
    job: Job, source: Segmenter, victims: Sequence[Segmenter], *, data: Path, work: Path, batch: int = 1
) -> None:
    """Run a job, or what is left of it. Raises InputError for what cannot run."""
    out, dataset = job.folder(work), open_data(data / job.part)
    if job.run == "score":
        found = list(_score(job, source, victims, dataset=dataset, out=out, batch=batch))
    else:
        found = list(_study(job, source, victims, dataset=dataset, out=out, batch=batch))
    write_json(out / "fields.json", {"run": job.run, "set": job.part, "fields": found})


def _study(
    job: Job, source: Segmenter, victims: Sequence[Segmenter], *, dataset: Any, out: Path, batch: int
) -> Iterator[JsonDict]:
    fields: dict[str, Any] = {"options": OPTIONS.get(job.name, {})}
    if job.run == TABLE:
        fields["attacks"] = (job.name,)
    elif job.run == "rga-ablation":
        fields["options"] = OPTIONS["rga"]
    elif job.run == "cross-prompt-matrix":
        fields |= MATRIX
    asked = study(job.run, **fields)
    shown = victims if job.run in (TABLE, "rga-ablation") else ()
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
