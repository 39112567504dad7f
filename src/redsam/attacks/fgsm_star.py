"""FGSM*: one grey level per step towards a mask that the attacker chooses (Jankowski et al., 2024)."""

from __future__ import annotations

from dataclasses import dataclass

from redsam.attacks.loop import Rule
from redsam.attacks.parts import fixed_step
from redsam.attacks.sparse import AimedAttack
from redsam.attacks.task import Task
from redsam.registry import register


@register("attack", "fgsm-star", paper="Red-Teaming Segment Anything Model (Jankowski et al.)", year=2024,
          url="https://arxiv.org/abs/2404.02067", norms=("linf",), kind="white-box", knowledge=("white-box",),
          cost="steps gradients")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class FGSMStar(AimedAttack):
    """Every value steps one grey level down the gradient of the squared distance to a target mask.

    Steps, step size, rounding, goals and stop rules as in the official notebook (see `AimedAttack`).
    Deviation: the notebook stops on sigmoid rounded at 0.5 of one mask, here every prompt of the image must get there;
    the change is bounded by the threat, the notebook's by the number of steps.
    """

    def rule(self, task: Task) -> Rule:
        return fixed_step(self.step_size)
