"""`load`, for models with a defence in front as well: `lab-b|jpeg:quality=50|median`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from redsam.defenses.base import Purifier
from redsam.defenses.defended import DRAWS, DefendedSegmenter
from redsam.defenses.specs import BETWEEN, chain
from redsam.models.base import Segmenter
from redsam.models.loading import load as load_model


def load(
    spec: str | Path | nn.Module,
    *,
    defenses: str | Purifier | Sequence[str | Purifier] = (),
    seed: int = 0,
    eot: int = DRAWS,
    **options: Any,
) -> Segmenter:
    """`redsam.models.load` and, after a `|` or in `defenses`, purifiers in the order an image passes them: those of the
    text first. seed: of what random purifiers draw; eot: draws that attackers average over (DefendedSegmenter).

    A defence is read before the model is, so a slip in it costs no time. Raises UnknownName, InputError, and what the
    other `load` raises. The weights of a file whose name has a `|` in it load as a Path.
    """
    passed = chain(defenses)
    if isinstance(spec, str):
        spec, _, behind = spec.partition(BETWEEN)
        passed = (*chain(behind), *passed)
        spec = spec.strip()
    model = load_model(spec, **options)
    return DefendedSegmenter(model, passed, seed=seed, eot=eot) if passed else model
