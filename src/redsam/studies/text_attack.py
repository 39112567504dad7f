"""text-attack: what a text finds, attacked until it is not found any more; boxes frozen and through the detector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from redsam.bench import rle
from redsam.bench.matrix import Entry, Matrix
from redsam.bench.presets import Trial
from redsam.bench.spec import JsonDict
from redsam.bench.statistics import image_sums, mean_interval, resamples
from redsam.bench.store import read_records
from redsam.bench.summary import latest
from redsam.data.naming import spelled
from redsam.errors import InputError
from redsam.registry import register
from redsam.studies.base import Request, Study
from redsam.studies.tables import MEASURED, Table, published

# Where the notebook's goals count as reached (see attacks/sparse.py); what is not reached by then is told as it is.
STOP = 0.01
COLUMNS = ("form", "attack", "judged", "n_images", "found", "before", "after", "kept", "reached", "iterations",
           "modified pixels", "MSE", "origin")  # fmt: skip


@register("study", "text-attack", paper="Red-Teaming Segment Anything Model (Jankowski et al.)", year=2024,
          url="https://arxiv.org/abs/2404.02067")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class TextAttack(Study):
    """FGSM* and FIGA on the masks of a text, to the notebook's stop rule, in every form the model has.

    A detector with a segmenter has two: "boxes frozen" asks the detector once, on the clean image, as published; its
    images are judged with these boxes (the paper's number) and by the detector looking again (what a user would get).
    "through the detector" follows the gradient through boxes and scores. Any other model has one, "end to end".
    goal "reverse" stops at an IoU with the clean mask under 0.01, "zero" at under 0.01 of the image masked, both after
    at most 25 iterations of one grey level, without a ball. figa_steps: FIGA moves few pixels at a time, so it may take
    more of them; None is the goal's own 25. k: share of the pixels that FIGA moves in an iteration. names: ask for
    these alone, where they are annotated; none means all that is.
    Deviation: one text an image, drawn from the names of what is annotated on it, where the notebook asks for "person"
    (`names=["person"]` does); FIGA's own k and number of iterations are not known.
    """

    goal: Literal["reverse", "zero"] = "reverse"
    k: float | None = 0.1
    steps: int | None = None
    figa_steps: int | None = 100
    max_objects: int | None = 1
    names: tuple[str, ...] = ()

    notes = (
        "found: images on which the clean model finds anything at all under the text; the other columns are over "
        "these, since what was not found cannot be lost. before, after: IoU with the annotation; kept: IoU with the "
        f"clean mask; reached: share with that under {STOP:g}.",
        "The paper's table of MSE, IoU and times was not to be had. What is told of it: FIGA does as well as FGSM* at "
        "a smaller MSE and with fewer modified pixels; black-box EBAD leaves an IoU of about 0.96.",
    )

    def attacks_used(self) -> Sequence[str]:
        return ("fgsm-star", "figa")

    def measure(self, asked: Request) -> Sequence[Table]:
        require_names(asked, self.names)
        forms = asked.model.forms()
        plain = {"goal": self.goal, "steps": self.steps}
        free = ({"norm": "linf", "eps": 1.0},)
        figa = self.trial("figa", free, label="FIGA", **plain | {"steps": self.figa_steps})
        # None is a value of k (all pixels), so it goes past `trial`, which leaves out what is None.
        figa = Trial(attack="figa", args={**figa.args, "k": self.k}, threats=figa.threats, label=figa.label)
        trials = [self.trial("fgsm-star", free, label="FGSM*", **plain), figa]
        protocol = ("text", {"max_objects": self.max_objects, "only": list(self.names)})
        rows: list[JsonDict] = []
        for form, model in forms.items():
            others = [m for f, m in forms.items() if f != form] if form == "boxes frozen" else []
            found = replace(asked, model=model, victims=tuple(others)).matrix(
                "text-attack", trials, [protocol], select="single"
            )
            names = {m.name: f for f, m in forms.items()}
            rows += [
                {"form": form, "attack": entry.trial, "judged": names[entry.victim]} | numbers
                for entry, numbers in measured_lines(found, asked)
            ]
        theirs = published("third-party summary of arXiv 2404.02067", form="boxes frozen", attack="EBAD", judged="",
                           kept=0.96)  # fmt: skip
        return [Table(title="Texts under attack", columns=COLUMNS, rows=(*rows, theirs))]


def require_names(asked: Request, names: Sequence[str]) -> None:
    """Raise InputError for a model that takes no text and for data that names nothing, or none of `names`."""
    if not asked.model.takes_text:
        raise InputError(
            f"{asked.model.name} ({asked.model.family}) takes no text.", hint="Type: --model lab-text, or grounded:A+B"
        )
    for scene in asked.dataset:
        held = {spelled(str(name)) for name in scene.meta.get("classes", ()) if str(name).strip()}
        if held & set(names) if names else held:
            return
    what = f"no {' or '.join(names)}" if names else "nothing"
    raise InputError(
        f"{asked.dataset.name} names {what} on its images, so there is no text to ask.",
        hint="Give --data DIR with class names: COCO JSON, or a known set such as voc.",
    )


def measured_lines(found: Matrix, asked: Request) -> Iterator[tuple[Entry, JsonDict]]:
    """Each attacked field of the matrix with its numbers over the prompts that the clean model answered."""
    for entry in found.entries:
        if entry.trial == "clean":
            continue
        records = latest(read_records(asked.out / "records" / entry.cell.id / "samples.jsonl"))
        good = [r for r in records if r["status"] == "ok"]
        yield entry, {**line(good), "n_failed": sum(r["status"] == "failed" for r in records), "cell": entry.cell.id}


def line(records: Sequence[JsonDict]) -> JsonDict:
    """Numbers of one field: means over prompts with intervals over images, costs over images."""
    out: JsonDict = {"n_images": len(records), "found": 0, "origin": MEASURED}
    kept = [(r, [p for p in r["prompts"] if answered(r, p)]) for r in records]
    kept = [(r, prompts) for r, prompts in kept if prompts]
    out["found"] = len(kept)
    if not kept:
        return out
    owners = [i for i, (_, prompts) in enumerate(kept) for _ in prompts]
    prompts = [p for _, mine in kept for p in mine]
    values: dict[str, list[Any]] = {
        "before": [p["iou_clean_gt"] for p in prompts],
        "after": [p["iou_adv_gt"] for p in prompts],
        "kept": [p["iou_adv_clean"] for p in prompts],
    }
    values["reached"] = [float(v < STOP) for v in values["kept"]]
    weights = resamples(len(kept), seed=0)
    for name, column in values.items():
        if None in column:
            continue
        counts = image_sums([1.0] * len(column), owners, len(kept))
        got = mean_interval(image_sums(column, owners, len(kept)), counts, weights)
        out |= {name: got.value, f"{name}_lo": got.lo, f"{name}_hi": got.hi}
    records = [r for r, _ in kept]
    if all(r.get("steps") is not None for r in records):  # a replay has none of its own
        out["iterations"] = float(np.mean([r["steps"] for r in records]))
    out["modified pixels"] = float(np.mean([r["l0"] for r in records]))
    out["MSE"] = float(np.mean([r["l2"] ** 2 / (3 * r["height"] * r["width"]) for r in records]))
    return out


def answered(record: JsonDict, prompt: JsonDict) -> bool:
    """Whether the clean mask of a prompt holds a pixel."""
    return bool(rle.decode([prompt["rle_clean"]], size=(record["height"], record["width"])).any())
