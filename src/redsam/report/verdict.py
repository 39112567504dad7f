"""The verdict: one sentence a model, computed from the rows of summary.json and nothing else.

The rules, in the order they are asked:
1. nothing measured: no row under attack has a number;
2. too weak: on clean images the model is below the bar against ground truth (point 0.34, box 0.64, text 0.30), so what
   an attack does to it says little about robustness;
3. too few: fewer than MIN_IMAGES images, or more than MAX_FAILED of them failed: a mean over the rest may be biased;
4. the loss (clean minus attacked, paired, bootstrap over images) decides with its whole interval: breaks when at least
   half of the clean mIoU is lost, holds when it stays below MARGIN, damaged when it stays above zero, undecided
   otherwise, which is where the interval straddles.
The row that speaks is the strongest attack at 8/255 (the budget most papers print; else the largest budget measured),
on the prompt kind that loses the larger share. Where nothing was attacked, the corruption that costs most at severity 3
(else at the largest one measured) speaks. "Holds" is only ever said of what was tried.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from redsam.report.reading import GROUND_TRUTH, Number, Row

Kind = Literal["empty", "weak", "few", "breaks", "hurt", "holds", "undecided"]

# mIoU on clean images below which a model is not one to draw conclusions from. text: what the best answer that never
# looks at the image reaches, a centred rectangle of the best size: coco_panoptic_val 0.292, held-out VOC 0.274,
# rounded up (benchmarks/lab_text.py).
BARS = {"point": 0.34, "box": 0.64, "text": 0.30}
PUBLISHED_EPS = 8 / 255
USUAL_SEVERITY = 3  # the middle of 1 to 5
MIXED = "all"  # the prompt kind of a row over several kinds
MIN_IMAGES = 5
ROUGH_IMAGES = 20  # below this a percentile bootstrap over images is itself rough: said, not decided on
MAX_FAILED = 0.2
MARGIN = 0.05  # a loss this small, with its whole interval, is called holding


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """lead and rest make the one sentence; notes are what a careful reader asks next. headline: the rows it rests on,
    worst first, one a prompt kind."""

    kind: Kind
    model: str
    lead: str
    rest: str
    notes: tuple[str, ...]
    headline: tuple[Row, ...]

    @property
    def sentence(self) -> str:
        """The verdict as plain text."""
        return f"{self.lead}: {self.rest}"


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """One verdict for each model, in the order of the rows; one of kind `empty` when there is no row at all."""
    models = list(dict.fromkeys(r.model for r in rows))
    return [verdict([r for r in rows if r.model == m], m) for m in models] or [verdict([], "the model")]


def verdict(rows: Sequence[Row], model: str) -> Verdict:
    """Judge one model by its rows."""
    headline = headline_rows(rows)
    if not headline:
        failed = max((r.n_failed for r in rows), default=0)
        rest = f"no attack has a number ({failed} images failed)." if failed else "no attack has a number yet."
        return Verdict(kind="empty", model=model, lead="Nothing was measured", rest=rest, notes=(), headline=())
    worst = headline[0]
    weak = [r for r in clean_rows(rows) if is_weak(r)]
    notes = list(_notes(rows, headline, weak))
    kind: Kind
    if weak:
        kind, lead = "weak", f"{model} is too weak to draw conclusions from"
        rest = "on clean images it reaches " + " and ".join(
            f"{span(r.clean)} mIoU with {plural(r.prompt)} (bar {BARS[r.prompt]:.2f}, {n_text(r)})" for r in weak
        )
        rest += f", measured against {GROUND_TRUTH}."
    elif worst.n_images < MIN_IMAGES or failed_share(worst) > MAX_FAILED:
        kind, lead = "few", f"Too few images to judge {model}"
        rest = f"{change_text(worst)} ({n_text(worst)}, {worst.n_failed} failed)."
    else:
        kind = decide(worst)
        lead = {
            "breaks": f"{model} breaks",
            "hurt": f"{model} is damaged",
            "holds": f"{model} holds against what was tried",
        }.get(kind, f"Undecided for {model}")
        rest = f"{change_text(worst)} ({n_text(worst)})."
        if kind == "undecided":
            rest = rest[:-1] + f"; the loss of {span(worst.delta, signed=True)} may be none."
    return Verdict(kind=kind, model=model, lead=lead, rest=rest, notes=tuple(notes), headline=tuple(headline))


def headline_rows(rows: Sequence[Row]) -> list[Row]:
    """Strongest attack at the headline budget for each prompt kind, the one that loses the largest share first; of
    corruptions, where there is no attack, at the headline severity.

    Rows against ground truth speak when there are any; otherwise rows against the clean prediction do.
    """
    known = [r for r in rows if r.attacked and r.prompt != MIXED and r.adv.value is not None]
    scored = [r for r in known if r.eps] or _usual([r for r in known if r.severity is not None])
    truth = [r for r in scored if r.reference == GROUND_TRUTH]
    scored = truth or scored
    if not scored:
        return []
    at8 = [r for r in scored if r.norm == "linf" and abs((r.eps or 0) - PUBLISHED_EPS) < 1e-6]
    if not at8 and any(r.eps for r in scored):
        norm = "linf" if any(r.norm == "linf" for r in scored) else scored[0].norm
        top = max(r.eps or 0 for r in scored if r.norm == norm)
        at8 = [r for r in scored if r.norm == norm and r.eps == top]
    best: dict[str, Row] = {}
    for row in at8 or scored:
        other = best.get(row.prompt)
        if other is None or _value(row.adv) < _value(other.adv):
            best[row.prompt] = row
    return sorted(best.values(), key=lambda r: (_value(r.adv) + 1e-9) / (_value(r.clean) + 1e-9))


def _usual(rows: Sequence[Row]) -> list[Row]:
    """The corruptions at the headline severity."""
    levels = {r.severity for r in rows if r.severity is not None}
    level = USUAL_SEVERITY if USUAL_SEVERITY in levels else max(levels, default=None)
    return [r for r in rows if r.severity == level]


def clean_rows(rows: Iterable[Row]) -> list[Row]:
    """For each prompt kind the row with the most prompts that tells the clean mIoU against ground truth."""
    best: dict[str, Row] = {}
    for row in rows:
        if row.reference != GROUND_TRUTH or row.clean.value is None or row.prompt == MIXED:
            continue
        if row.prompt not in best or row.n_prompts > best[row.prompt].n_prompts:
            best[row.prompt] = row
    return list(best.values())


def is_weak(row: Row) -> bool:
    """The clean mIoU of this row lies under the bar of its prompt kind (kinds without a bar are never weak)."""
    bar = BARS.get(row.prompt)
    return bar is not None and row.reference == GROUND_TRUTH and row.clean.value is not None and row.clean.value < bar


def decide(row: Row) -> Kind:
    """Rule 4 on the loss of one row; without an interval nothing is decided."""
    lo, hi = row.delta.lo, row.delta.hi
    if lo is None or hi is None:
        return "undecided"
    if lo > 0 and lo >= 0.5 * _value(row.clean):
        return "breaks"
    if hi < MARGIN:
        return "holds"
    return "hurt" if lo > 0 else "undecided"


def change_text(row: Row) -> str:
    """What the attack did, with both means, their intervals and the reference."""
    reference = row.reference if row.reference == GROUND_TRUTH else f"the {row.reference}"
    return (
        f"under {row.label} at {row.budget} its mIoU against {reference} goes from {span(row.clean)} "
        f"to {span(row.adv)} with {plural(row.prompt)}"
    )


def span(n: Number, *, signed: bool = False) -> str:
    """`0.46 [0.42, 0.50]`, or the value alone where no interval was measured."""
    form = "{:+.2f}" if signed else "{:.2f}"
    text = form.format(n.value) if n.value is not None else "unmeasured"
    if n.lo is not None and n.hi is not None:
        text += f" [{form.format(n.lo)}, {form.format(n.hi)}]"
    return text.replace("-", "\N{MINUS SIGN}")


def n_text(row: Row) -> str:
    """`n = 200 prompts on 100 images`."""
    return f"n = {row.n_prompts} {'prompt' if row.n_prompts == 1 else 'prompts'} on {row.n_images} " + (
        "image" if row.n_images == 1 else "images"
    )


def plural(prompt: str) -> str:
    """A prompt kind in running text."""
    many = {"point": "single points", "points": "several points", "box": "boxes", "mask": "masks", "text": "texts"}
    return many.get(prompt, prompt)


def unknown_defence(rows: Iterable[Row]) -> bool:
    """The model stands behind a defence, and none of the attacks on it went through that defence."""
    attacked = [r for r in rows if r.attacked and r.severity is None and r.raw.get("defense")]
    return bool(attacked) and not any(r.raw.get("probe") == "attack" for r in attacked)


def failed_share(row: Row) -> float:
    """Share of the images that gave no number."""
    return row.n_failed / max(1, row.n_failed + row.n_images)


def _value(n: Number) -> float:
    return n.value if n.value is not None else 0.0


def _notes(rows: Sequence[Row], headline: Sequence[Row], weak: Sequence[Row]) -> Iterable[str]:
    worst = headline[0]
    if unknown_defence(rows):
        yield (
            f"No attack here knows the defence ({worst.raw['defense']}): these images were made without it, so they "
            "are no evidence of robustness. An adaptive number is missing."
        )
    if weak:
        who = "attack" if worst.severity is None else "corruption"
        yield f"What the {who} did to it all the same: {change_text(worst)} ({n_text(worst)})."
    for other in headline[1:]:
        same = (other.label, other.budget) == (worst.label, worst.budget)
        who = "attack" if other.severity is None else "corruption"
        how = f"the same {who}" if same else f"{other.label} at {other.budget}"
        yield f"With {plural(other.prompt)}, {how}: {span(other.clean)} to {span(other.adv)} ({n_text(other)})."
    for row in clean_rows(rows):
        bar = BARS.get(row.prompt)
        if bar is not None and not is_weak(row) and row.clean.lo is not None and row.clean.lo < bar:
            yield f"With {plural(row.prompt)} the clean interval {span(row.clean)} reaches below the bar of {bar:.2f}."
    if worst.reference != GROUND_TRUTH:
        yield "There is no ground truth: whether the clean model is any good could not be measured."
    if worst.raw.get("n_gone"):
        yield f"{worst.raw['n_gone']} prompts left their image with the pixels and are in no mean."
    if worst.n_failed:
        yield f"{worst.n_failed} of {worst.n_failed + worst.n_images} images failed and are in no mean."
    if worst.n_images < ROUGH_IMAGES:
        yield f"Only {worst.n_images} images: intervals from so few are rough themselves."
