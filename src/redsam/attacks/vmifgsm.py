"""VMI-FGSM: momentum on gradients corrected by their variance in the neighbourhood (Wang & He, 2021, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass

from redsam.attacks.gradient import GradientAttack
from redsam.attacks.loop import Parts
from redsam.attacks.parts import fixed_step, momentum
from redsam.attacks.transforms import step_or_share, variance_tuned
from redsam.registry import register
from redsam.threat import Threat


@register("attack", "vmifgsm", year=2021, url="https://arxiv.org/abs/2103.15571", norms=("linf",), kind="transfer",
          paper="Enhancing the Transferability of Adversarial Attacks through Variance Tuning (Wang & He)",
          knowledge=("white-box", "transfer"), cost="steps x (samples + 1) gradients")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class VMIFGSM(GradientAttack):
    """Variance-tuned MI-FGSM; the last iterate is delivered.

    As published: 20 samples uniform within beta = 1.5 times eps, decay 1.0, 10 steps of eps / steps.
    Deviation: the variance after the last step, which nobody would use, is not computed.
    """

    steps: int = 10
    step_size: float | None = None
    decay: float = 1.0
    samples: int = 20
    beta: float = 1.5
    keep_best: bool = False

    def parts(self, threat: Threat) -> Parts:
        size = step_or_share(self.step_size, self.steps, threat)
        return Parts(
            steps=self.steps, start=self.clean_start(), rule=fixed_step(size),
            differentiate=variance_tuned(self.samples, self.beta * threat.eps), gradients=(momentum(self.decay),),
            keep_best=self.keep_best, passes=self.samples + 1,
        )  # fmt: skip
