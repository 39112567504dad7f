"""SegPGD: PGD whose weight moves from correct to wrong pixels while it runs (Gu et al., 2022, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass

from redsam.attacks.gradient import GradientAttack
from redsam.attacks.loop import Parts
from redsam.attacks.parts import fixed_step, uniform
from redsam.objectives import SEGPGD
from redsam.registry import register
from redsam.threat import Threat

# 0.01 at the paper's eps of 8/255; other budgets keep the proportion.
STEP_SHARE = 0.01 / (8 / 255)


@register("attack", "segpgd", year=2022, url=SEGPGD, norms=("linf",), kind="white-box",
          paper="SegPGD: An Effective and Efficient Adversarial Attack for Evaluating and Boosting Segmentation "
          "Robustness (Gu et al.)", knowledge=("white-box", "transfer"), cost="steps gradients")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class SegPGD(GradientAttack):
    """Sign steps from a random start on the `segpgd` objective, whose schedule runs over the steps.

    20 steps of 0.01 at eps 8/255 (step_size None: in proportion to eps). Deviation: one logit per pixel, see the
    objective; `keep_best` delivers the iterate with the highest cross-entropy (the objective at the schedule's end),
    False is as published.
    """

    steps: int = 20
    step_size: float | None = None
    objective: str = "segpgd"

    def parts(self, threat: Threat) -> Parts:
        size = self.step_size if self.step_size is not None else STEP_SHARE * threat.eps
        return Parts(steps=self.steps, start=uniform, rule=fixed_step(size), keep_best=self.keep_best)
