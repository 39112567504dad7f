"""FGSM: one step of the whole budget along the gradient (Goodfellow et al., 2015, eq. in section 4)."""

from __future__ import annotations

from dataclasses import dataclass

from redsam.attacks.gradient import GradientAttack
from redsam.attacks.loop import Parts
from redsam.attacks.parts import fixed_step
from redsam.registry import register
from redsam.threat import Threat


@register("attack", "fgsm", paper="Explaining and Harnessing Adversarial Examples (Goodfellow et al.)", year=2015,
          url="https://arxiv.org/abs/1412.6572", norms=("linf", "l2"), kind="white-box",
          knowledge=("white-box", "transfer"), cost="1 gradient")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class FGSM(GradientAttack):
    """Fast gradient sign method: x - eps * sign(gradient); in l2 the gradient of length eps.

    Deviation: none for objectives on masks. Objectives on features start at a random point of the ball, where their
    gradient is not zero.
    """

    # Published: the step is taken and delivered, whether it helped or not.
    keep_best: bool = False

    def parts(self, threat: Threat) -> Parts:
        return Parts(steps=1, start=self.clean_start(), rule=fixed_step(threat.eps), keep_best=self.keep_best)
