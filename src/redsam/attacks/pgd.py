"""PGD: projected gradient descent from a random start (Madry et al., 2018, eq. 2)."""

from __future__ import annotations

from dataclasses import dataclass

from redsam.attacks.gradient import GradientAttack
from redsam.attacks.loop import Parts
from redsam.attacks.parts import fixed_step, uniform
from redsam.registry import register
from redsam.threat import Threat


@register("attack", "pgd", paper="Towards Deep Learning Models Resistant to Adversarial Attacks (Madry et al.)",
          year=2018, url="https://arxiv.org/abs/1706.06083", norms=("linf", "l2"), kind="white-box",
          knowledge=("white-box", "transfer"), cost="steps gradients")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class PGD(GradientAttack):
    """Steps of steepest descent from a random point of the ball (from the clean image with random_start False).

    step_size in the threat's units, None is eps / 4: the 2/255 at eps 8/255 that the papers on SAM use (Attack-SAM with
    10 steps, UAD and RGA with 40). Madry et al. trained with 40 steps on MNIST and 7 of 2/255 on CIFAR-10.
    Deviation: `keep_best` delivers the best iterate; False is as published.
    """

    steps: int = 40
    step_size: float | None = None
    random_start: bool = True

    def parts(self, threat: Threat) -> Parts:
        size = self.step_size if self.step_size is not None else threat.eps / 4
        start = uniform if self.random_start else self.clean_start()
        return Parts(steps=self.steps, start=start, rule=fixed_step(size), keep_best=self.keep_best)
