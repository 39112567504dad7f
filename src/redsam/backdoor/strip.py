"""STRIP-like detection of triggered pictures: lay other pictures over one and see whether the answer cares (Gao et al.,
"STRIP: A Defence Against Trojan Attacks on Deep Neural Networks", ACSAC 2019).

A clean picture's mask changes with every overlay; a triggered one's stays the attacker's. Entropy of a prompt: over the
pixels that any answer selects, the mean binary entropy of the share of answers that select them, in bits; 0 when all
answers are alike (also when all are empty). Low is suspicious.
Deviation: the paper takes the entropy over classes; a mask has one choice a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from redsam.errors import InputError
from redsam.models.base import Segmenter
from redsam.models.resample import resize
from redsam.seeds import generator
from redsam.types import Sample, from_uint8, to_uint8

FALSE_ALARMS = 0.05  # share of clean prompts that the threshold may accuse


@dataclass(frozen=True, kw_only=True)
class Strip:
    """overlays: pictures laid over each (paper: 100). mix: out = clip(mix (x + overlay)); 0.5 is the mean of both.
    alarms: share of clean prompts that may be accused (paper: 0.5 to 5 %).

    Deviation: the paper takes the saturating sum (mix 1), which makes most photographs white.
    """

    overlays: int = 16
    mix: float = 0.5
    alarms: float = FALSE_ALARMS
    seed: int = 0

    def __post_init__(self) -> None:
        if self.overlays < 2 or not 0 < self.mix <= 1 or not 0 < self.alarms < 1:
            raise InputError("STRIP needs 2 overlays or more, a mix up to 1, and a share of false alarms.")


@torch.no_grad()
def entropies(model: Segmenter, sample: Sample, pool: Sequence[Tensor], settings: Strip) -> list[float]:
    """Entropy of each prompt in bits, [0, 1]. pool: pictures 3xHxW to lay over, without the sample's own."""
    if len(pool) < 2:
        raise InputError("STRIP lays other pictures over each one; there are none.", hint="Give more pictures.")
    order = torch.randperm(len(pool), generator=generator("strip", settings.seed, sample.id)).tolist()
    size = sample.size
    mixed = [
        from_uint8(to_uint8((settings.mix * (sample.image + resize(pool[i][None], size)[0])).clamp(0, 1)))
        for i in order[: settings.overlays]
    ]
    answers = model.predict(mixed, [list(sample.prompts)] * len(mixed))
    share = torch.stack([a.masks.cpu() for a in answers]).float().mean(0)  # PxHxW
    bits = -(torch.xlogy(share, share) + torch.xlogy(1 - share, 1 - share)) / np.log(2)
    touched = (share > 0).flatten(1).sum(1)
    found: list[float] = (bits.flatten(1).sum(1) / touched.clamp(min=1)).tolist()
    return found


@dataclass(frozen=True, kw_only=True)
class Separation:
    """auroc: probability that a triggered prompt has the lower entropy, ties half. threshold: entropy below which a
    prompt is accused, set on the clean ones. caught, alarms: share of triggered and of clean prompts accused."""

    auroc: float
    threshold: float
    caught: float
    alarms: float
    clean: int
    triggered: int


def separate(clean: Sequence[float], triggered: Sequence[float], *, alarms: float = FALSE_ALARMS) -> Separation:
    """How well entropies tell triggered from clean prompts. Raises InputError when one side is empty."""
    a: NDArray[np.float64] = np.asarray(clean, dtype=np.float64)
    b: NDArray[np.float64] = np.asarray(triggered, dtype=np.float64)
    if not len(a) or not len(b):
        raise InputError("There is nothing to tell apart.")
    lower = (b[:, None] < a[None]).mean() + 0.5 * (b[:, None] == a[None]).mean()
    threshold = float(np.quantile(a, alarms))
    return Separation(
        auroc=float(lower), threshold=threshold, caught=float((b < threshold).mean()),
        alarms=float((a < threshold).mean()), clean=len(a), triggered=len(b),
    )  # fmt: skip
