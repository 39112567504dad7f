"""BIM, the basic iterative method or I-FGSM (Kurakin et al., 2017, section 2.2)."""

from __future__ import annotations

from dataclasses import dataclass

from redsam.attacks.gradient import GradientAttack
from redsam.attacks.loop import Parts
from redsam.attacks.parts import fixed_step
from redsam.registry import register
from redsam.threat import Threat


@register("attack", "bim", paper="Adversarial Examples in the Physical World (Kurakin et al.)", year=2017,
          url="https://arxiv.org/abs/1607.02533", norms=("linf",), kind="white-box",
          knowledge=("white-box", "transfer"), cost="steps gradients")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class BIM(GradientAttack):
    """Sign steps of one grey level from the clean image, clipped to the ball.

    steps None is the paper's rule min(eps + 4, 1.25 eps) with eps in grey levels, rounded, at least 1. step_size in
    [0, 1] units, 1/255 as published. Deviation: `keep_best` delivers the best iterate; False is as published.
    """

    steps: int | None = None
    step_size: float = 1 / 255

    def parts(self, threat: Threat) -> Parts:
        levels = threat.eps * 255
        steps = self.steps if self.steps is not None else max(round(min(levels + 4, 1.25 * levels)), 1)
        return Parts(
            steps=steps, start=self.clean_start(), rule=fixed_step(self.step_size), keep_best=self.keep_best
        )  # fmt: skip
