"""TI-FGSM: gradients smoothed by a kernel, as if taken over translated images (Dong et al., 2019, algorithm in 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

from redsam.attacks.gradient import GradientAttack
from redsam.attacks.loop import Parts
from redsam.attacks.parts import fixed_step, momentum
from redsam.attacks.transforms import Kernel, diversity, ranked_at_iterate, smoothed, step_or_share
from redsam.registry import register
from redsam.threat import Threat


@register("attack", "tifgsm", year=2019, url="https://arxiv.org/abs/1904.02884", norms=("linf",), kind="transfer",
          paper="Evading Defenses to Transferable Adversarial Examples by Translation-Invariant Attacks (Dong et al.)",
          knowledge=("white-box", "transfer"), cost="steps gradients")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class TIFGSM(GradientAttack):
    """TI-MI-FGSM; TI-DIM with probability 0.7. The last iterate is delivered.

    As published: Gaussian kernel of length 15, decay 1.0, 10 steps of eps / steps. Deviation: none without input
    diversity (probability 0, so that a table shows the kernel alone); with it those of `difgsm`, and losses are those
    of the copies. keep_best and stop_at then cost one more forward pass a step.
    """

    steps: int = 10
    step_size: float | None = None
    decay: float = 1.0
    kernel: Kernel = "gaussian"
    length: int = 15
    resize_rate: float = 299 / 330
    probability: float = 0.0
    keep_best: bool = False

    def parts(self, threat: Threat) -> Parts:
        parts = Parts(
            steps=self.steps, start=self.clean_start(),
            rule=fixed_step(step_or_share(self.step_size, self.steps, threat)),
            transform=diversity(self.resize_rate, self.probability) if self.probability > 0 else None,
            gradients=(smoothed(self.kernel, self.length), momentum(self.decay)), keep_best=self.keep_best,
        )  # fmt: skip
        return ranked_at_iterate(parts, self.keep_best or self.stop_at is not None)
