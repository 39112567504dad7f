"""PATA: prompt-agnostic target attack, features pulled to another image's and made dominant (Zheng et al., 2023)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redsam.attacks.feature import Anchors, FeatureAttack, Features, Loss, distance, dominance, rows
from redsam.attacks.photographs import choices
from redsam.attacks.task import Task
from redsam.registry import register

# The competitor's features for the active images; called once per evaluation.
Competitors = Callable[[Sequence[int]], Features]


@register("attack", "pata", paper="Black-box Targeted Adversarial Attack on Segment Anything (Zheng et al.)",
          year=2023, url="https://arxiv.org/abs/2310.10010", norms=("linf",), kind="transfer",
          knowledge=("white-box", "transfer"), cost="steps gradients", features="blocks")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class PATA(FeatureAttack):
    """Minimises ||f(x') - f(target)||_2 - weight * mean_l [cos(f, f + c) - cos(c, f + c)], c the features of one fixed
    competitor image: what is pulled to the target's features should also dominate when mixed with another image's.

    target: path of the image whose features are wanted, resized to the attacked size; None is one of the bundled
    photographs, drawn by each image's seed and never the attacked one. The competitor is another of them.
    As UAD (2024) runs it: blocks 4 to 7 of 12, weight 0.1, 40 steps of eps / 4 from the clean image. Deviation: bundled
    photographs instead of SA-1B; UAD's formula is followed, since the paper's own constants were not to be had.
    """

    weight: float = 0.1
    target: str | None = None

    def passes_beside(self) -> int:
        """Target and competitor."""
        return 2

    def competitors(self, pictures: list[list[Tensor]], task: Task, anchors: Anchors) -> Competitors:
        """One fixed picture per image, read once."""
        fixed = anchors(torch.stack([others[1] for others in pictures]))
        return lambda active: rows(fixed, active)

    def loss(self, task: Task, anchors: Anchors) -> Loss:
        """The formula of the class."""
        pictures = choices(task, self.target)
        wanted = anchors(torch.stack([others[0] for others in pictures]))
        competitors = self.competitors(pictures, task, anchors)

        def value(features: Features, images: Tensor, active: Sequence[int]) -> Tensor:
            pulled = distance(features, rows(wanted, active))
            return pulled - self.weight * dominance(features, competitors(active))

        return value
