"""AA, Activation Attack: features pulled to those of another image (Inkawhich et al., 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redsam.attacks.feature import Anchors, FeatureAttack, Features, Loss, distance, rows
from redsam.attacks.photographs import choices
from redsam.attacks.task import Task
from redsam.registry import register

URL = (
    "https://openaccess.thecvf.com/content_CVPR_2019/html/Inkawhich_Feature_Space_Perturbations_Yield_More_"
    "Transferable_Adversarial_Examples_CVPR_2019_paper.html"
)


@register("attack", "aa", paper="Feature Space Perturbations Yield More Transferable Adversarial Examples "
          "(Inkawhich et al.)", year=2019, url=URL, norms=("linf",), kind="transfer",
          knowledge=("white-box", "transfer"), cost="steps gradients", features="blocks")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class AA(FeatureAttack):
    """Minimises ||f(x') - f(target)||_2 from the clean image, with sign steps.

    target: path of the image whose features are wanted, resized to the attacked size; None is one of the bundled
    photographs, drawn by each image's seed and never the attacked one.
    As UAD's benchmark (2024) runs it on SAM: blocks 4 to 7 of 12 together, 40 steps of eps / 4, no momentum, a random
    image as target. Deviation: bundled photographs instead of SA-1B. Inkawhich et al. take one layer, momentum, and of
    some images of the target class the one whose features are furthest.
    """

    target: str | None = None

    def loss(self, task: Task, anchors: Anchors) -> Loss:
        """The formula of the class."""
        wanted = anchors(torch.stack([pictures[0] for pictures in choices(task, self.target)]))

        def value(features: Features, images: Tensor, active: Sequence[int]) -> Tensor:
            return distance(features, rows(wanted, active))

        return value
