"""SI-NI-FGSM: look-ahead gradients averaged over dimmed copies (Lin et al., 2020, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass

from redsam.attacks.gradient import GradientAttack
from redsam.attacks.loop import Parts
from redsam.attacks.parts import fixed_step, momentum
from redsam.attacks.transforms import average, chain, lookahead, ranked_at_iterate, scaled, step_or_share
from redsam.registry import register
from redsam.threat import Threat


@register("attack", "sinifgsm", year=2020, url="https://arxiv.org/abs/1908.06281", norms=("linf",), kind="transfer",
          paper="Nesterov Accelerated Gradient and Scale Invariance for Adversarial Attacks (Lin et al.)",
          knowledge=("white-box", "transfer"), cost="steps x copies gradients")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class SINIFGSM(GradientAttack):
    """Nesterov look-ahead over the copies x / 2^i, i < copies; the last iterate is delivered, losses are those of the
    full-scale copy. Decay 0 is SI alone, copies 1 is NI-FGSM.

    As published: 5 copies, decay 1.0, 10 steps of eps / steps. Deviation: normalisation as in `nifgsm`. keep_best and
    stop_at cost one more forward pass a step.
    """

    steps: int = 10
    step_size: float | None = None
    decay: float = 1.0
    copies: int = 5
    keep_best: bool = False

    def parts(self, threat: Threat) -> Parts:
        size = step_or_share(self.step_size, self.steps, threat)
        ahead = lookahead(size, self.decay)
        parts = Parts(
            steps=self.steps, start=self.clean_start(), rule=fixed_step(size),
            differentiate=average([chain(ahead, scaled(0.5**i)) for i in range(self.copies)]),
            gradients=(momentum(self.decay),), keep_best=self.keep_best, passes=self.copies,
        )  # fmt: skip
        return ranked_at_iterate(parts, self.keep_best or self.stop_at is not None)
