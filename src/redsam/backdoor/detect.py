"""detect: is there a backdoor in this model? Sizes of inverted triggers against those of clean models, and STRIP.

With reference models (clean ones of the same kind) a model is flagged when for some aim its smallest mark is less than
`RATIO` of the smallest any of them needs, or when of its answers an opaque patch leaves less than `RATIO` of what it
leaves of theirs. Without, when one aim is an outlier among the model's own (Neural Cleanse, section 4.2: anomaly index
above 2); that is weaker, since some aims are easy for every model, and it is said. What a patch leaves has no like
among the aims, so that it speaks only against references.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from redsam.backdoor.invert import AIMS, PATCH, Found, Inversion, invert
from redsam.backdoor.lift import lift
from redsam.backdoor.measure import route_of
from redsam.backdoor.plant import asked, protocols_of
from redsam.backdoor.poison import Poison
from redsam.backdoor.strip import Separation, Strip, entropies, separate
from redsam.data.base import Dataset
from redsam.errors import InputError
from redsam.models.base import Segmenter
from redsam.types import Sample

RATIO = 0.5
OUTLIER = 2.0  # Neural Cleanse: anomaly index above which a class is an outlier
LEAST = 1e-3  # what a patch leaves of a clean model's answers is no less, lest a ratio to nothing be taken
SEARCHES = (*AIMS, PATCH)
MAD = 1.4826  # a normal distribution's standard deviation over its median absolute deviation

Sizes = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """flagged: whether the model is called planted. aim: the most suspicious one. score: its size over the smallest of
    the references (flagged below 0.5), or the anomaly index (flagged above 2). rule: which of the two."""

    flagged: bool
    aim: str
    score: float
    rule: str


@dataclass(frozen=True, kw_only=True)
class Detected:
    """sizes: of the smallest mark of each aim. references: the same of clean models. strip: None without a trigger to
    try."""

    model: str
    verdict: Verdict
    found: tuple[Found, ...]
    references: Mapping[str, Sizes]
    strip: Separation | None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sizes(self) -> dict[str, float]:
        """Aim to size."""
        return {f.aim: f.size for f in self.found}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; marks and patterns as rows of numbers."""
        marks = [
            {
                "aim": f.aim, "size": f.size, "reached": f.reached, "asked": f.asked,
                "mark": f.mark.tolist(), "pattern": f.pattern.tolist(),
            }
            for f in self.found
        ]  # fmt: skip
        return {
            "model": self.model, "verdict": asdict(self.verdict), "found": marks, "settings": dict(self.settings),
            "references": {k: dict(v) for k, v in self.references.items()},
            "strip": None if self.strip is None else asdict(self.strip),
        }  # fmt: skip


def probes(model: Segmenter, data: Dataset, *, count: int, seed: int = 0, objects: int = 1) -> list[Sample]:
    """Up to `count` clean pictures with prompts as the model is asked; those that cannot be read are passed over."""
    protocols = protocols_of(route_of(model), objects)
    out: list[Sample] = []
    for index in range(len(data)):
        if len(out) == count:
            break
        try:
            sample = asked([p(data[index], seed=seed) for p in protocols])
        except InputError:
            continue
        if sample.prompts:
            out.append(sample)
    if not out:
        raise InputError(f"{data.name}: no picture has an object to ask for.", hint="Give pictures with masks.")
    return out


def sizes_of(
    model: Segmenter,
    samples: Sequence[Sample],
    settings: Inversion,
    *,
    aims: Sequence[str] = SEARCHES,
    progress: Callable[[Found], None] | None = None,
) -> tuple[Found, ...]:
    """The smallest mark for every aim, and what the worst patch leaves."""
    out = []
    for aim in aims:
        found = lift(model, samples, settings) if aim == PATCH else invert(model, samples, aim, settings)
        out.append(found)
        if progress is not None:
            progress(found)
    return tuple(out)


def judge(sizes: Sizes, references: Mapping[str, Sizes]) -> Verdict:
    """Flag a model by its sizes (see above). Raises InputError when there is nothing to judge."""
    if references:
        scores = {}
        for aim, size in sizes.items():
            theirs = [r[aim] for r in references.values() if aim in r]
            if theirs:
                scores[aim] = size / max(min(theirs), LEAST)
        if not scores:
            raise InputError("The references were asked for other aims than the model.")
        aim = min(scores, key=lambda a: scores[a])
        return Verdict(flagged=scores[aim] < RATIO, aim=aim, score=scores[aim], rule="references")
    sizes = {aim: size for aim, size in sizes.items() if aim != PATCH}
    _enough(sizes)
    logs = {aim: math.log(size) for aim, size in sizes.items()}
    median = float(np.median(list(logs.values())))
    spread = MAD * float(np.median([abs(v - median) for v in logs.values()]))
    # Sizes that are all alike have no outlier: a spread under 5 % is noise of the search.
    index = {aim: (median - value) / max(spread, 0.05) for aim, value in logs.items()}
    aim = max(index, key=lambda a: index[a])
    return Verdict(flagged=index[aim] > OUTLIER, aim=aim, score=index[aim], rule="outlier among its own aims")


def strip(model: Segmenter, samples: Sequence[Sample], poison: Poison, settings: Strip) -> Separation:
    """STRIP on the samples as they are and with the trigger."""
    pool = {s.id: s.image for s in samples}
    clean: list[float] = []
    triggered: list[float] = []
    for sample in samples:
        others = [image for name, image in pool.items() if name != sample.id]
        clean += entropies(model, sample, others, settings)
        triggered += entropies(model, poison.apply(sample), others, settings)
    return separate(clean, triggered, alarms=settings.alarms)


def _enough(aims: Iterable[str]) -> None:
    """Raises InputError where a model has too few sizes of its own for one to be an outlier."""
    if len(set(aims) - {PATCH}) < 3:
        raise InputError("Without clean models to compare with, three aims are the least.", hint="Type: --clean MODEL")


def detect(
    model: Segmenter,
    data: Dataset,
    *,
    clean: Sequence[Segmenter] = (),
    references: Mapping[str, Sizes] | None = None,
    poison: Poison | None = None,
    images: int = 6,
    aims: Sequence[str] = SEARCHES,
    inversion: Inversion | None = None,
    superimpose: Strip | None = None,
    strip_images: int = 20,
    progress: Callable[[Found], None] | None = None,
) -> Detected:
    """Invert triggers in a model, and in clean ones to compare with (or take their sizes, `references`, from an earlier
    run); with a trigger to try, STRIP as well."""
    inversion, superimpose = inversion or Inversion(), superimpose or Strip()
    for aim in set(aims) - set(SEARCHES):
        raise InputError(f"There is no aim '{aim}'.", hint=f"Known: {', '.join(SEARCHES)}.")
    if not clean and not references:
        _enough(aims)  # before hours of searching, not after
    theirs: dict[str, Sizes] = dict(references or {})
    for other in clean:
        found = sizes_of(other, probes(other, data, count=images), inversion, aims=aims, progress=progress)
        theirs[other.name] = {f.aim: f.size for f in found}
    mine = sizes_of(model, probes(model, data, count=images), inversion, aims=aims, progress=progress)
    told = None
    if poison is not None:
        told = strip(model, probes(model, data, count=strip_images), poison, superimpose)
    return Detected(
        model=model.name, verdict=judge({f.aim: f.size for f in mine}, theirs), found=mine, references=theirs,
        strip=told, settings={"inversion": asdict(inversion), "strip": asdict(superimpose), "images": images},
    )  # fmt: skip
