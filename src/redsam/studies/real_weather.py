"""Real weather beside the drawn one: photographs in fog, rain, snow and at night against clear ones, truth annotated.

A data set has real weather when its ids begin with a condition and two underscores, as those of ACDC do here ("fog__",
"rain__", "snow__", "night__", and "normal__" or "clear__"). Every second photograph of a condition is a style
reference, the others are the test: no photograph is ever both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from redsam.bench.contrasts import unpaired
from redsam.bench.presets import Asked, Change
from redsam.bench.spec import JsonDict
from redsam.data import Dataset
from redsam.studies.base import GROUND_TRUTH, Request
from redsam.studies.changed import UNCHANGED, Field, ask
from redsam.studies.tables import Table

CLEAR = "clear"
REAL = ("fog", "rain", "snow", "night")
# Drawn conditions that mean to be the real one.
DRAWN = {"fog": ("fog", "haze"), "rain": ("rain", "wet", "wet+drops"), "snow": ("snow",), "night": ("night",)}
STYLE_SEVERITY = 5  # all the way to the reference
COLUMNS = ("weather", "how", "victim", "prompt", "n_images", "n_prompts", "n_failed", "miou", "loss", "reference",
           "origin")  # fmt: skip


class Settings(Protocol):
    """What of the study is used here."""

    @property
    def styles(self) -> tuple[str, ...]: ...
    @property
    def references(self) -> int: ...
    def protocols(self) -> list[Asked]: ...


def condition(name: str) -> str | None:
    """The condition that an id names, None when it names none."""
    word, mark, _ = name.partition("__")
    word = CLEAR if word == "normal" else word
    return word if mark and word in (CLEAR, *REAL) else None


def clear_of(data: Dataset) -> Dataset | None:
    """The clear photographs of a set with real weather, None for any other set."""
    named = {name: condition(name) for name in data.ids}
    clear = [name for name, word in named.items() if word == CLEAR]
    return data.subset(clear) if clear and any(word in REAL for word in named.values()) else None


def halves(data: Dataset) -> dict[str, tuple[list[str], list[str]]]:
    """Of each real condition that is there: ids to test on, ids of style references."""
    by_word = {word: sorted(n for n in data.ids if condition(n) == word) for word in REAL}
    return {word: (names[::2], names[1::2]) for word, names in by_word.items() if names}


def real_rows(asked: Request, clear: Dataset, truth: Sequence[Field], study: Settings) -> list[Table]:
    """Clear, real, drawn and restyled, each against ground truth. truth: what was measured on the clear ones."""
    parts, protocols = halves(asked.dataset), study.protocols()
    styled = [
        Change(corruption=style, args={"reference": str(asked.dataset.path(name))}, severities=(STYLE_SEVERITY,),
               label=f"{word}: {style} of real photograph {i}")
        for word, (_, references) in parts.items()
        for style in study.styles
        for i, name in enumerate(references[: study.references], start=1)
    ]  # fmt: skip
    restyled = ask(asked, "real-weather", styled, protocols, data=clear, objects="annotated") if styled else []
    lines: list[tuple[str, JsonDict]] = []
    ours = {(f.victim, f.protocol): f for f in truth if f.change == UNCHANGED}
    lines += [(CLEAR, _line(f, CLEAR, "real, nothing done", loss=None)) for f in ours.values()]
    for word, (tests, _) in parts.items():
        for f in ask(asked, "real-weather", (), protocols, data=asked.dataset.subset(tests), objects="annotated"):
            gap = unpaired(ours[f.victim, f.protocol].data, f.data, measure="miou_adv", reference=GROUND_TRUTH)
            lost = {"loss": gap.found.value, "loss_lo": gap.found.lo, "loss_hi": gap.found.hi} if gap else None
            lines.append((word, _line(f, word, "real, other photographs", loss=lost)))
        drawn = [f for f in truth if f.change in DRAWN[word]]
        lines += [(word, _line(f, word, f"drawn: {f.change}, severity {f.severity}")) for f in drawn]
        mine = [f for f in restyled if f.change.startswith(f"{word}: ")]
        lines += [(word, _line(f, word, f.change.partition(": ")[2])) for f in mine]
    title = "Real weather against ground truth: loss against the clear photographs (unpaired for real weather)"
    return [Table(title=title, columns=COLUMNS, rows=tuple(line for _, line in lines))]


def _line(field: Field, word: str, how: str, **changes: Any) -> JsonDict:
    line = field.line([GROUND_TRUTH], weather=word, how=how, prompt=field.protocol)
    if "loss" in changes:  # not the cell's own, which compares an image with itself
        nothing = dict.fromkeys(("loss", "loss_lo", "loss_hi"))
        line |= changes["loss"] or nothing
    return line
