"""DI-FGSM: gradients of randomly resized and padded copies (Xie et al., 2019, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

from redsam.attacks.gradient import GradientAttack
from redsam.attacks.loop import Parts
from redsam.attacks.parts import fixed_step, momentum
from redsam.attacks.transforms import diversity, ranked_at_iterate
from redsam.registry import register
from redsam.threat import Threat


@register("attack", "difgsm", year=2019, url="https://arxiv.org/abs/1803.06978", norms=("linf",), kind="transfer",
          paper="Improving Transferability of Adversarial Examples with Input Diversity (Xie et al.)",
          knowledge=("white-box", "transfer"), cost="steps gradients", noisy=True)  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class DIFGSM(GradientAttack):
    """M-DI2-FGSM, momentum and input diversity (DI2-FGSM with decay 0); the last iterate is delivered.

    As published: probability 0.5, decay 1.0, steps of one grey level, steps None = min(eps + 4, 1.25 eps) in grey
    levels; resize_rate is the paper's 299 of 330 pixels. Deviation: the canvas has the image's own size instead of
    330 pixels, and prompts do not move with the picture. keep_best and stop_at cost one more forward pass a step.
    """

    steps: int | None = None
    step_size: float = 1 / 255
    decay: float = 1.0
    resize_rate: float = 299 / 330
    probability: float = 0.5
    keep_best: bool = False

    def parts(self, threat: Threat) -> Parts:
        levels = threat.eps * 255
        steps = self.steps if self.steps is not None else max(round(min(levels + 4, 1.25 * levels)), 1)
        parts = Parts(
            steps=steps, start=self.clean_start(), rule=fixed_step(self.step_size),
            transform=diversity(self.resize_rate, self.probability), gradients=(momentum(self.decay),),
            keep_best=self.keep_best,
        )  # fmt: skip
        return ranked_at_iterate(parts, self.keep_best or self.stop_at is not None)
