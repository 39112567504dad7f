"""NI-FGSM: the gradient is taken where momentum is about to carry the image (Lin et al., 2020, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

from redsam.attacks.gradient import GradientAttack
from redsam.attacks.loop import Parts
from redsam.attacks.parts import fixed_step, momentum
from redsam.attacks.transforms import lookahead, ranked_at_iterate, step_or_share
from redsam.registry import register
from redsam.threat import Threat


@register("attack", "nifgsm", year=2020, url="https://arxiv.org/abs/1908.06281", norms=("linf",), kind="transfer",
          paper="Nesterov Accelerated Gradient and Scale Invariance for Adversarial Attacks (Lin et al.)",
          knowledge=("white-box", "transfer"), cost="steps gradients")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class NIFGSM(GradientAttack):
    """Nesterov iterative FGSM; the last iterate is delivered, losses are those at the look-ahead points.

    As published: decay 1.0, 10 steps of eps / steps. Deviation: gradients are normalised by their mean, as in the
    authors' code, where the text writes the l1 norm (which would leave nothing of the look-ahead). keep_best and
    stop_at cost one more forward pass a step.
    """

    steps: int = 10
    step_size: float | None = None
    decay: float = 1.0
    keep_best: bool = False

    def parts(self, threat: Threat) -> Parts:
        size = step_or_share(self.step_size, self.steps, threat)
        parts = Parts(
            steps=self.steps, start=self.clean_start(), rule=fixed_step(size), transform=lookahead(size, self.decay),
            gradients=(momentum(self.decay),), keep_best=self.keep_best,
        )  # fmt: skip
        return ranked_at_iterate(parts, self.keep_best or self.stop_at is not None)
