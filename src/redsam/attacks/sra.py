"""S-RA: every mask of a grid of clicks on the target is removed (Shen, Li & Wang, 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redsam.attacks.base import Attack
from redsam.attacks.clicks import Clicks, size_of
from redsam.attacks.gradient import follow
from redsam.attacks.loop import Parts, Trace
from redsam.attacks.parts import fixed_step, zero
from redsam.attacks.task import Task
from redsam.attacks.transforms import step_or_share
from redsam.errors import InputError
from redsam.prompts import Prompt, point
from redsam.registry import register
from redsam.threat import Threat


@register("attack", "s-ra", year=2024, url="https://arxiv.org/abs/2404.08255", norms=("linf",), kind="white-box",
          paper="Practical Region-level Attack against Segment Anything Models (Shen et al.)",
          knowledge=("white-box", "transfer"), cost="steps gradients")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class SRA(Attack):
    """PGD on the mean ClipMSE of all masks of a grid of click points over the region, from the clean image.

    As published: 100 steps of eps / 100 (step_size None: eps / steps), all three masks at image resolution, the best
    iterate. The region is the union of an image's reference masks; `select` only serves the clean reference and
    stop_at. Deviation: grid x grid points over the region's bounding box, of which those in the region are used (the
    authors' code has one corner point unless edited, the paper's number is not known to us).
    """

    grid: int = 5
    steps: int = 100
    step_size: float | None = None

    def needs_reference(self) -> bool:
        """The region is made of it."""
        return True

    def parts(self, threat: Threat) -> Parts:
        """The recipe."""
        size = step_or_share(self.step_size, self.steps, threat)
        return Parts(steps=self.steps, start=zero, rule=fixed_step(size), keep_best=self.keep_best)

    def search(self, task: Task) -> Trace:
        """PGD at the grid."""
        if self.grid < 1:
            raise InputError(f"A grid of {self.grid} points is none.", hint="Give at least 1.")
        clicks = [grid_over(masks, self.grid, size_of(task)) for masks in task.reference or ()]
        evaluate = Clicks(task=task, prompts=clicks, select="every", user_select=self.select, stop_at=self.stop_at)
        return follow(evaluate, task, self.parts(task.threat))


def grid_over(masks: Tensor, count: int, size: tuple[int, int]) -> Sequence[Prompt]:
    """Clicks at the middles of count x count cells of the bounding box of the union of bool PxHxW masks, those that lie
    in it; the union's pixel nearest to the box's middle if none does; all over the image if the union is empty."""
    union = masks.any(0).cpu()
    if not bool(union.any()):
        union = torch.ones(size, dtype=torch.bool)
    inside = union.nonzero()
    low, high = inside.min(0).values, inside.max(0).values + 1
    share = (torch.arange(count) + 0.5) / count
    rows, columns = (sorted(set((low[i] + share * (high[i] - low[i])).long().tolist())) for i in (0, 1))
    found = [point(x, y) for y in rows for x in columns if union[y, x]]
    if found:
        return found
    y, x = inside[(inside - (low + high) / 2).square().sum(1).argmin()].tolist()
    return [point(x, y)]
