"""JSMA, saliency map attack: one pixel at a time, as the red-teaming of SAM has it (Papernot et al., 2016)."""

from __future__ import annotations

from dataclasses import dataclass, field

from redsam.attacks.figa import FIGA
from redsam.registry import register


@register("attack", "jsma", paper="The Limitations of Deep Learning in Adversarial Settings (Papernot et al.)",
          year=2016, url="https://arxiv.org/abs/1511.07528", norms=("l0", "linf"), kind="white-box",
          knowledge=("white-box",), cost="steps gradients")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class JSMA(FIGA):
    """FIGA with k = 1: each step moves the one most salient pixel by a grey level.

    Deviation: the saliency is the gradient of the mask loss (Jankowski et al., 2024), where Papernot et al. weigh a
    target class against all others and saturate pairs of features; 25 steps (150 towards a custom mask) are FGSM*'s.
    """

    k: float | None = field(default=1.0, init=False)
