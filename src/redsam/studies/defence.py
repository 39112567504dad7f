"""defence: every purifier in front of one model, judged by images that do not know it and by an attacker who does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redsam.bench import matrix
from redsam.bench.contrasts import alone, paired
from redsam.bench.files import read_json, write_bytes, write_json
from redsam.bench.matrix import Entry
from redsam.bench.presets import Asked, linf
from redsam.bench.spec import JsonDict
from redsam.bench.store import RunStore
from redsam.bench.table import GROUND_TRUTH, REFERENCES, read_table
from redsam.bench.table import Table as Columns
from redsam.data import Dataset
from redsam.defenses import DefendedSegmenter
from redsam.defenses.defended import DRAWS
from redsam.defenses.specs import apart, chain
from redsam.errors import InputError
from redsam.models.base import Segmenter
from redsam.registry import register
from redsam.studies.base import Request, Study
from redsam.studies.tables import MEASURED, Table

NONE, FIGURE = "none", "defence.svg"
ADAPTIVE, STATIC = "an attacker who knows it", "images that do not know it: no evidence"
SIMPLE = ("jpeg", "jpeg:quality=50", "gaussian", "median", "bit-depth", "tv", "resize-pad", "nlm", "bilateral", "noise")
LOOKED = 5  # images whose purification is timed
COLUMNS = (
    "defense", "prompt", "n_images", "n_prompts", "n_failed", "clean", "cost", "static", "static_gain", "transfer",
    "source", "adaptive", "adaptive_gain", "seconds", "judged", "reference",
)  # fmt: skip


@register("study", "defence", paper="On Adaptive Attacks to Adversarial Example Defenses (Tramer et al.)", year=2020,
          url="https://arxiv.org/abs/2002.08347")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class Defence(Study):
    """Undefended, static, transfer and adaptive mIoU of purifiers side by side, with what they cost on clean images.

    static: images crafted on the undefended model, shown to the defended one. transfer: crafted on the other models
    given (--victims), the one that hurts most. adaptive: crafted through the defence, with its gradient, BPDA where it
    has none, averaged over `eot` draws where it is random. Gains are over the undefended model under the same attack,
    paired by image. seconds: of purifying one image, processor time on a CPU. defenses: each a chain (`jpeg|median`).
    Deviation: the paper tailors an attack to each defence by hand; here one attack is made adaptive by rule, so an
    adaptive number is an upper bound on what the defence is worth. Without one (adaptive=false) a row says so.
    """

    defenses: Sequence[str] | str = SIMPLE
    attack: str = "pgd"
    steps: int | None = 40
    level: int = 8
    prompts: Sequence[str] = ("point", "box")
    max_objects: int | None = 5
    eot: int = DRAWS
    adaptive: bool = True

    transfers = True
    notes = (
        "An adaptive number is what one attack found, an upper bound: a stronger attacker may leave less.",
        "static and transfer images know nothing of the defence; a gain there alone is no evidence of robustness.",
    )

    def attacks_used(self) -> Sequence[str]:
        return (self.attack,)

    def chains(self) -> list[str]:
        """The defences, each as text; read once, so that a slip is found before a model is loaded."""
        given = self.defenses
        named = apart(given) if isinstance(given, str) else list(given) if isinstance(given, list | tuple) else []
        if not (named and all(isinstance(name, str) and name.strip() for name in named)):
            raise InputError("There is no defence to measure.", hint="Type: --set defenses=jpeg,median")
        return ["|".join(p.label for p in chain(text)) for text in named]

    def check(self, *, victims: Sequence[object] = (), train: object = None) -> None:
        super().check(victims=victims, train=train)
        self.chains()

    def measure(self, asked: Request) -> Sequence[Table]:
        defended = [DefendedSegmenter(asked.model, text, seed=asked.seed, eot=self.eot) for text in self.chains()]
        defended = list({d.fingerprint(): d for d in defended}.values())
        entries = self._cells(asked, [asked.model, *asked.everyone[1:]], [asked.model, *defended])
        for one in defended if self.adaptive else ():
            entries += self._cells(asked, [one], [one])
        costs = _seconds(asked.out / "purifiers.json", defended, asked.dataset)
        records = _Records(RunStore(asked.out))
        rows = []
        for prompt in dict.fromkeys(e.test for e in entries):
            mine = [e for e in entries if e.test == prompt]
            plain = _Fields(mine, asked.model.name, asked.model.name)
            for name, label in [(asked.model.name, NONE), *((d.name, d.label) for d in defended)]:
                fields = _Fields(mine, name, asked.model.name)
                rows.append(self._row(records, fields, plain, prompt) | {"defense": label, "seconds": costs.get(label)})
        title = f"{asked.model.name} behind purifiers: {self.attack} at {self.level}/255"
        draw(asked.out / FIGURE, rows, title)
        return [Table(title=title, columns=COLUMNS, rows=tuple(rows), figure=FIGURE)]

    def _cells(self, asked: Request, sources: Sequence[Segmenter], victims: Sequence[Segmenter]) -> list[Entry]:
        trial = self.stepped(self.attack, linf(self.level), self.steps)
        protocols: list[Asked] = [(name, {"max_objects": self.max_objects}) for name in self.prompts]
        found = matrix(
            sources, victims, asked.dataset, trials=[trial], attacker_protocols=protocols, out=asked.out,
            name="defence", seed=asked.seed, batch=asked.batch, progress=asked.progress, command=asked.command,
        )  # fmt: skip
        return list(found.entries)

    def _row(self, records: _Records, fields: _Fields, plain: _Fields, prompt: str) -> JsonDict:
        own, reference = records.of(fields.clean), _reference(records, fields)
        before = None if plain.static is None else records.of(plain.static)
        row: JsonDict = {"prompt": prompt, "origin": MEASURED, "reference": reference, "cell": fields.clean.cell.id}
        row |= {"n_images": len(own.samples), "n_prompts": len(own.owner), "n_failed": own.failed}
        row |= _mean("clean", own, own, reference)
        if fields is plain or fields.victim == plain.victim:
            row |= _mean("static", before, own, reference) | {"judged": ADAPTIVE}
            row |= _prefixed("adaptive", "static", row)
        else:
            row |= _gap("cost", records.of(plain.clean), own, reference) | {"judged": STATIC}
            for name, entry in (("static", fields.static), ("adaptive", fields.adaptive)):
                if entry is not None:
                    row |= _mean(name, records.of(entry), own, reference)
                    row |= _gap(f"{name}_gain", records.of(entry), before, reference)
            if fields.adaptive is not None:
                row["judged"] = ADAPTIVE
        worst = min(
            ((_mean("transfer", records.of(e), own, reference), e.source) for e in fields.transfer),
            key=lambda pair: 2.0 if pair[0]["transfer"] is None else pair[0]["transfer"], default=None,
        )  # fmt: skip
        return row if worst is None else row | worst[0] | {"source": worst[1]}


def draw(path: Path, rows: Sequence[JsonDict], title: str) -> None:
    """Robust against clean mIoU of the first kind of prompt."""
    from redsam.report.scatter import Mark, scatter_svg
    from redsam.report.standalone import standalone

    def span(row: JsonDict, name: str) -> tuple[float, float, float] | None:
        value = row.get(name)
        ends = (row.get(f"{name}_lo"), row.get(f"{name}_hi"))
        return None if value is None else (value, *(value if end is None else end for end in ends))

    marks = []
    for row in (r for r in rows if r["prompt"] == rows[0]["prompt"]):
        clean, plain = span(row, "clean"), row["defense"] == NONE
        static = None if plain else span(row, "static")
        if clean is not None:
            marks.append(
                Mark(name=row["defense"], clean=clean, adaptive=span(row, "adaptive"), static=static, lead=plain)
            )
    told = f"{title}, {rows[0]['prompt']}, against {rows[0]['reference']}"
    write_bytes(path, standalone(scatter_svg(marks, title=told)).encode())


class _Records:
    """Cells as columns, each read once."""

    def __init__(self, store: RunStore) -> None:
        self.store = store
        self._known: dict[str, Columns] = {}

    def of(self, entry: Entry) -> Columns:
        cell = entry.cell
        if cell.id not in self._known:
            self._known[cell.id] = read_table(cell, self.store.cell(cell).samples)
        return self._known[cell.id]


class _Fields:
    """The cells of one victim and one kind of prompt: clean; images of the undefended model; of others; of its own."""

    def __init__(self, entries: Sequence[Entry], victim: str, model: str) -> None:
        mine = [e for e in entries if e.victim == victim]
        self.victim = victim
        self.clean = next(e for e in mine if e.trial == "clean")
        attacked = [e for e in mine if e.trial != "clean"]
        self.static = next((e for e in attacked if e.source == model), None)
        self.adaptive = next((e for e in attacked if e.source == victim), None)
        self.transfer = [e for e in attacked if e.source not in (model, victim)]


def _reference(records: _Records, fields: _Fields) -> str:
    return GROUND_TRUTH if records.of(fields.clean).known(GROUND_TRUTH) else REFERENCES[-1]


def _mean(name: str, of: Columns | None, own: Columns, reference: str) -> JsonDict:
    """The mean over the images of a cell, with its ends."""
    found = None if of is None else alone(of, measure="miou_adv", reference=reference, among=of.samples)
    return _ends(name, found)


def _gap(name: str, first: Columns, second: Columns | None, reference: str) -> JsonDict:
    """How much higher the first is, paired by image."""
    found = None if second is None else paired(first, second, measure="miou_adv", reference=reference)
    return _ends(name, found)


def _ends(name: str, found: Any) -> JsonDict:
    if found is None:
        return dict.fromkeys((name, f"{name}_lo", f"{name}_hi"))
    return {name: found.found.value, f"{name}_lo": found.found.lo, f"{name}_hi": found.found.hi}


def _prefixed(new: str, old: str, row: JsonDict) -> JsonDict:
    return {f"{new}{end}": row[f"{old}{end}"] for end in ("", "_lo", "_hi")}


def _seconds(path: Path, defended: Sequence[DefendedSegmenter], images: Dataset) -> dict[str, float]:
    """Mean seconds that each defence takes for an image, timed on the first run and kept in the folder: processor time
    on a CPU, where what else runs on the machine must not count; wall time on a device."""
    known: dict[str, float] = read_json(path) if path.exists() else {}
    for one in (d for d in defended if d.label not in known):
        spent = []
        for index in range(min(len(images), LOOKED)):
            try:
                image = images[index].image[None].to(one.device)
            except Exception:  # a broken file is a failed record elsewhere
                continue
            clock = time.process_time if one.device.type == "cpu" else time.perf_counter
            began = clock()
            one.purified(image)
            spent.append(clock() - began)
        if spent:
            known[one.label] = round(sum(spent) / len(spent), 4)
    write_json(path, known)
    return known
