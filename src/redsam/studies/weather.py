"""weather: what night, rain, snow and drops on the lens do to a model; the paper's protocol, and against the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from redsam.bench.contrasts import paired
from redsam.bench.objects import automatic, find_objects
from redsam.bench.presets import CONDITIONS, Asked, Change
from redsam.bench.spec import JsonDict
from redsam.registry import register
from redsam.studies.base import CLEAN_PREDICTION, GROUND_TRUTH, Request, Study
from redsam.studies.changed import UNCHANGED, Field, ask, by_question, told
from redsam.studies.real_weather import clear_of, real_rows
from redsam.studies.tables import MEASURED, Table, beside, published

SOURCE = "official notebook's output, 174 Cityscapes photographs (Aachen), SAM-H, conditions drawn by CycleGANs"
# Mean IoU with the mask of the overcast photograph, best first.
PUBLISHED = {
    "snow": 0.8707,
    "wet": 0.7957,
    "overcast+drops": 0.7649,
    "night": 0.7030,
    "wet+drops": 0.5660,
    "snow+drops": 0.5439,
    "night+drops": 0.3896,
}
SAID = {1: "holds", -1: "reversed", 0: "undecided"}
CENTRES = "red-teaming"  # the protocol of centre clicks
NUMBERS = ("n_images", "n_prompts", "n_failed", "miou", "psnr", "reference", "origin")


@register("study", "weather", paper="Red-Teaming Segment Anything Model (Jankowski et al.)", year=2024,
          url="https://arxiv.org/abs/2404.02067")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class Weather(Study):
    """The paper's stability under weather, the same against ground truth, and which of its orderings hold.

    As published: the k = 9 largest automatic masks of the clean image, the centre of each as a single click, the
    largest of three masks as the answer, IoU with the clean answer. Beside it `prompts` on annotated objects, the
    model's own choice among three masks, IoU with the annotation; photographs without masks have no such table. Of data
    with real weather (ids "fog__...", "normal__...") the clear photographs are corrupted, and the real ones stand
    beside (real_weather.py).

    grid, least_iou, least_stability: of the automatic masks, as published; small models score few masks that high, so
    that fewer than k are found, or none, and then need lower ones.

    Deviation: conditions are this library's, without training, at one severity; means are over clicks, not over images'
    means. The centre of a mask that lies outside it is moved onto it (see `red-teaming`).
    """

    conditions: tuple[str, ...] = CONDITIONS
    severity: int = 3
    k: int = 9
    grid: int = 32
    least_iou: float = 0.88
    least_stability: float = 0.95
    prompts: tuple[str, ...] = ("point", "box")
    max_objects: int | None = 5
    references: int = 1
    styles: tuple[str, ...] = ("reinhard", "fda")

    transfers = True
    notes = (
        "Stability says how far the answer moves, not whether it was right: a model that always answers with the whole "
        "image is perfectly stable. The rows against ground truth say the rest.",
        "Two summaries of the paper by others swap night and wet (0.80 and 0.70); the notebook's printed output is "
        "what stands here.",
        "The paper's conclusion is that texture (drops) hurts more than colour (night, wet); at equal PSNR that is the "
        "study `texture`.",
    )

    def corruptions_used(self) -> Sequence[str]:
        return self.conditions

    def measure(self, asked: Request) -> Sequence[Table]:
        clear = clear_of(asked.dataset)
        base = asked.dataset if clear is None else clear
        changes = [Change(corruption=name, severities=(self.severity,)) for name in self.conditions]
        centres: Asked = (CENTRES, {"max_objects": self.k})
        found = automatic(grid=self.grid, iou=self.least_iou, stability=self.least_stability)
        stable = ask(asked, "weather", changes, [centres], data=base, objects=found, select="area")
        truth: list[Field] = []
        real: list[Table] = []
        if find_objects(base) == "annotated":
            truth = ask(asked, "weather", changes, self.protocols(), data=base, objects="annotated")
            if clear is not None:
                real = real_rows(asked, clear, truth, self)
        ours = [
            f.line([CLEAN_PREDICTION], condition=f.change)
            for f in stable
            if f.change != UNCHANGED  # the clean answer agrees with itself
        ]
        theirs = [
            published(SOURCE, condition=name, victim="SAM-H", n_images=174, miou=miou, reference=CLEAN_PREDICTION)
            for name, miou in PUBLISHED.items()
        ]
        title = f"Stability: centres of the {self.k} largest masks, severity {self.severity}, IoU with the clean answer"
        tables = [
            Table(title=title, columns=("condition", "victim", *NUMBERS), rows=beside(ours, theirs, by=("condition",)))
        ]
        tables += self._orderings([*stable, *truth])
        if truth:
            rows = tuple(f.line([GROUND_TRUTH], condition=f.change, prompt=f.protocol) for f in truth)
            columns = ("condition", "victim", "prompt", *NUMBERS[:3], "miou", "loss", *NUMBERS[4:])
            tables.append(Table(title="Against ground truth: what the weather costs", columns=columns, rows=rows))
        return tables + real

    def protocols(self) -> list[Asked]:
        """How annotated objects are asked."""
        return [(name, {"max_objects": self.max_objects}) for name in self.prompts]

    def _orderings(self, fields: Sequence[Field]) -> list[Table]:
        """All pairs of published conditions, counted, and the neighbours in the published order one by one."""
        counted: list[JsonDict] = []
        shown: list[JsonDict] = []
        for victim, protocol, group in by_question(fields):
            there = [n for n in PUBLISHED if (n, self.severity) in group]
            reference = CLEAN_PREDICTION if protocol == CENTRES else GROUND_TRUTH
            keys = {"victim": victim, "asked": protocol, "reference": reference, "origin": MEASURED}
            said = []
            for better, worse in combinations(there, 2):
                a, b = (group[name, self.severity].data for name in (better, worse))
                gap = paired(a, b, measure="miou_adv", reference=reference)
                said.append(SAID[gap.sign] if gap else "undecided")
                if (better, worse) in set(pairwise(there)):
                    words = {"first": better, "second": worse, "published": PUBLISHED[better] - PUBLISHED[worse]}
                    shown.append(keys | words | told(gap) | {"verdict": said[-1]})
            counted.append(keys | {"pairs": len(said)} | {word: said.count(word) for word in SAID.values()})
        return [
            Table(
                title="How many of the published orderings hold: the whole interval on the published side",
                columns=("victim", "asked", "pairs", *SAID.values(), "reference", "origin"),
                rows=tuple(counted),
            ),
            Table(
                title="Neighbours in the published order: mIoU of the first minus the second, paired over images",
                columns=("first", "second", "published", "victim", "asked", "difference", "n_images", "verdict",
                         "reference", "origin"),
                rows=tuple(shown),
            ),
        ]  # fmt: skip
