"""sam-autoattack: a fixed, versioned list of attacks, cheap ones first, of which the worst outcome is delivered."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from redsam.attacks.base import Attack
from redsam.attacks.compose import Ledger, Member, deliver, overlap
from redsam.attacks.loop import Trace
from redsam.attacks.task import Task
from redsam.errors import InputError
from redsam.registry import register

# Written out, not taken from sea.py: a version keeps its losses.
SEA_LOSSES = ("masked-ce", "segpgd", "js", "masked-logit")
# Numbers are compared across papers by version, so the list of a version that was published never changes: a better
# list is a new version.
VERSIONS: Mapping[str, tuple[Member, ...]] = {
    "1": (
        Member(name="fgsm"),
        Member(name="almost-nothing", args={"steps": 10}),
        Member(name="apgd", args={"steps": 100}),
        # Four losses with the radius schedule; published with 300 iterations each. SEA is for linf.
        Member(name="sea", args={"iterations": 100}, norms=("linf",)),
        *(Member(name="apgd", args={"steps": 100, "objective": loss}, norms=("l2",)) for loss in SEA_LOSSES),
        Member(name="almost-nothing", args={"steps": 100}),
        Member(name="square", args={"queries": 500}),
    ),
}
ASR_10 = 0.1  # an attack on a prompt has succeeded when its IoU is at most 10 %: ASR@10 of UAD and RGA
REACHED = "at or below the threshold before any attack"


@register("attack", "sam-autoattack",
          paper="After AutoAttack (Croce & Hein) and SEA (Croce, Singh & Hein)", year=2024,
          url="https://arxiv.org/abs/2306.12941", norms=("linf", "l2"), kind="white-box", knowledge=("white-box",),
          cost="its members on those images that survived the cheaper ones")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class SamAutoAttack(Attack):
    """Worst case over APGD, SEA's losses with its radius schedule, a feature attack and Square.

    The members of `version` run in order, each alone from its own start and seeds. After each, its images are projected
    and rounded as they would be delivered, and their mean IoU over the prompts of an image with the reference (ground
    truth when given as `reference`, else the clean prediction) is measured by the model's final answer. Delivered is
    the image with the lowest such IoU of all members run, whatever their own objectives say; the clean image itself
    when every attack only raised it. With one prompt an image (joint=False) that is the worst per prompt.

    survive: images above this IoU go on to the next member; 0.1 is success in the sense of ASR@10. exhaustive: every
    member runs on every image. What holds at the same budget, model, reference and seeds:
    - exhaustive: the IoU is at most that of each member run alone, literally.
    - otherwise (default, as AutoAttack does): the IoU is at most `survive` or at most that of each member. So at the
      threshold `survive` and every higher one (ASR@10, ASR@50) it succeeds wherever a member does; an image that
      stopped at IoU 0.08 may have reached 0.02 under a member that was not run, so the mean IoU is not a minimum.
    Kernels that sum a batch in another order can move a member's image by a level, as for every attack here.

    steps, queries: of every member that has them (steps are SEA's iterations), instead of the version's: a quick look,
    no longer the version.
    stop_at goes to the members too. Members that do not search in the threat's norm are left out.
    Trace.losses: members + 1 rows; row 0 is the clean image's IoU, row r that of what member r would deliver, nan where
    an image was not given to it (smaller is better for the attacker). Steps, gradients, forwards, queries: summed.
    Deviation: AutoAttack and SEA are for classifiers and for semantic segmentation, so lists and criterion are ours:
    IoU per image of prompts instead of the label or of pixel accuracy. Version 1 gives each of SEA's losses 100 of the
    published 300 iterations and runs them on survivors only; in l2, for which SEA has no schedule, they drive APGD.
    """

    version: str = "1"
    survive: float = ASR_10
    exhaustive: bool = False
    steps: int | None = None
    queries: int | None = None

    def __post_init__(self) -> None:
        if self.version not in VERSIONS:
            raise InputError(
                f"There is no version '{self.version}' of sam-autoattack.", hint=f"Known: {', '.join(VERSIONS)}."
            )
        if not 0 <= self.survive < 1:
            raise InputError(f"survive={self.survive:g} is not an IoU below 1.", hint="Give 0.1 for ASR@10.")

    def needs_reference(self) -> bool:
        """Who survives is decided by it."""
        return True

    def members(self, norm: str) -> tuple[tuple[str, Attack], ...]:
        """(label, attack) of the version's members that search in this norm, in order; labels show options in force."""
        shared = {
            "steps": self.steps, "iterations": self.steps, "queries": self.queries, "stop_at": self.stop_at,
            "select": self.select,
        }  # fmt: skip
        made = [(m, m.make(**shared)) for m in VERSIONS[self.version] if m.searches_in(norm)]
        return tuple((replace(m, args={k: getattr(a, k) for k in m.args}).label, a) for m, a in made)

    def search(self, task: Task) -> Trace:
        """Each member on the survivors of those before it."""
        if task.threat.queries is not None:
            raise InputError(
                "sam-autoattack is many attacks, a limit of queries on all of them together has no meaning.",
                hint="Leave out the limit, or run a query attack alone: square.",
            )
        ledger = Ledger(count=len(task))
        worst = overlap(task, deliver(task, task.clean), self.select)
        ledger.forwards += len(task)
        images, losses, fresh = task.clean.clone(), [worst], torch.ones(len(task), dtype=torch.bool)
        for i in torch.nonzero(worst <= self.survive).flatten().tolist():
            ledger.remarks[i].append(REACHED)
        for label, attack in self.members(task.threat.norm):
            row = torch.full_like(worst, math.nan)
            rows = [i for i, value in enumerate(worst.tolist()) if self.exhaustive or value > self.survive]
            if rows:
                part, index = task.subset(rows), torch.tensor(rows)
                trace = attack.search(part)
                ledger.add(label, trace, rows)
                row[index] = overlap(part, deliver(part, trace.images), self.select)
                ledger.forwards += len(rows)
                # Of equals the first, hence cheapest, attack is delivered, but any attack rather than the clean image.
                better = (row < worst) | (fresh & (row <= worst))
                worst, fresh = torch.where(better, row, worst), fresh & ~better
                taken = better[index].to(images.device)
                images[index[better[index]].to(images.device)] = trace.images[taken]
            losses.append(row)
        return ledger.trace(images, torch.stack(losses))
