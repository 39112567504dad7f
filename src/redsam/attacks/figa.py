"""FIGA, the focused iterative gradient attack: only the most salient pixels move (Jankowski et al., 2024)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from redsam.attacks.loop import Rule
from redsam.attacks.sparse import AimedAttack, focused
from redsam.attacks.task import Task
from redsam.errors import InputError
from redsam.registry import register


@register("attack", "figa", paper="Red-Teaming Segment Anything Model (Jankowski et al.)", year=2024,
          url="https://arxiv.org/abs/2404.02067", norms=("l0", "linf"), kind="white-box", knowledge=("white-box",),
          cost="steps gradients")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class FIGA(AimedAttack):
    """FGSM* on the k most salient pixels of each step, chosen anew from the largest |gradient| of a pixel's channels.

    k: a number of pixels; below 1 a share of them; None is all, which is FGSM*, and 1 is JSMA. unit: "pixel" is an RGB
    triple, "value" one channel of one. Under l0 the threat bounds how many pixels ever change; once that is spent only
    those go on. `Budget.l0` reports the modified pixels.
    Deviation: the paper's code is not public; k, unit, steps and stop rules of its runs are unknown. k 0.01 is ours,
    the rest is FGSM*'s. Values that cannot move (0, 1, the ball's edge) are passed over, or k = 1 would stand still.
    """

    k: float | None = 0.01
    unit: Literal["pixel", "value"] = "pixel"

    def rule(self, task: Task) -> Rule:
        if self.unit not in ("pixel", "value"):
            raise InputError(f"There is no unit '{self.unit}'.", hint="Choose from pixel, value.")
        pixels = task.clean.shape[-2] * task.clean.shape[-1] * (3 if self.unit == "value" else 1)
        return focused(self._count(pixels), self.step_size, values=self.unit == "value")

    def _count(self, pixels: int) -> int:
        """k as a number. Raises InputError when the image has not so many."""
        if self.k is None:
            return pixels
        if not self.k > 0:
            raise InputError(f"k is {self.k:g}: nothing would change.", hint=f"Give 1 to {pixels} {self.unit}s.")
        count = math.ceil(self.k * pixels) if self.k < 1 else int(self.k)
        if count > pixels or (self.k >= 1 and count != self.k):
            raise InputError(
                f"k is {self.k:g}, the image has {pixels} {self.unit}s.",
                hint=f"Give a whole number from 1 to {pixels}, a share below 1, or null for all.",
            )
        return count
