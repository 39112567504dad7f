"""MI-FGSM: iterative steps along an accumulated gradient (Dong et al., 2018, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass

from redsam.attacks.gradient import GradientAttack
from redsam.attacks.loop import Parts
from redsam.attacks.parts import fixed_step, momentum
from redsam.registry import register
from redsam.threat import Threat


@register("attack", "mifgsm", paper="Boosting Adversarial Attacks with Momentum (Dong et al.)", year=2018,
          url="https://arxiv.org/abs/1710.06081", norms=("linf", "l2"), kind="transfer",
          knowledge=("white-box", "transfer"), cost="steps gradients")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class MIFGSM(GradientAttack):
    """Momentum iterative FGSM from the clean image; made for transfer.

    decay 1.0, step_size None = eps / steps and 10 steps as published. Deviation: `keep_best` delivers the best iterate;
    False is as published and what a transfer study should use.
    """

    steps: int = 10
    decay: float = 1.0
    step_size: float | None = None

    def parts(self, threat: Threat) -> Parts:
        size = self.step_size if self.step_size is not None else threat.eps / max(self.steps, 1)
        return Parts(
            steps=self.steps, start=self.clean_start(), rule=fixed_step(size), gradients=(momentum(self.decay),),
            keep_best=self.keep_best,
        )  # fmt: skip
