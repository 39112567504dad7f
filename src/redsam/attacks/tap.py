"""TAP: features pushed apart after power normalisation, with a smooth perturbation (Zhou et al., 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from redsam.attacks.feature import Anchors, FeatureAttack, Features, Loss, distance, nudged, rows
from redsam.attacks.loop import Start
from redsam.attacks.task import Task
from redsam.objectives import wide
from redsam.registry import register

URL = (
    "https://openaccess.thecvf.com/content_ECCV_2018/papers/Bruce_Hou_Transferable_Adversarial_Perturbations_"
    "ECCV_2018_paper.pdf"
)
# |f|^0.5 has no slope at zero; below this a feature counts as zero.
FLAT = 1e-6
# The start in UAD's benchmark: noise of 0.01 standard deviations, since the gradient is zero at the clean image.
NUDGE = 0.01


@register("attack", "tap", paper="Transferable Adversarial Perturbations (Zhou et al.)", year=2018,
          url=URL, norms=("linf",), kind="transfer",
          knowledge=("white-box", "transfer"), cost="steps gradients", features="blocks")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class TAP(FeatureAttack):
    """Minimises -||P(f(x')) - P(f(x))||_2 + eta * sum |box(x - x')|, where P(f) = sign(f) |f|^power and box is the mean
    over window x window pixels; from the clean image plus faint Gaussian noise, with sign steps.

    As UAD's benchmark (2024) runs it on SAM: blocks 4 to 7 of 12, 40 steps of eps / 4, power 0.5, eta 0.01, window 3
    without overlap, perturbation in units of the model's per-channel standard deviation. Deviation from that: the
    perturbation is smoothed in original pixels, not in the 1024-pixel frame; features below 1e-6 get no gradient.
    Deviation from Zhou et al., as in that benchmark: one distance over all blocks, not the sum of its squares per
    block, no classification loss (there are no classes), sign steps from the clean image.
    """

    power: float = 0.5
    eta: float = 0.01
    window: int = 3

    def start(self, task: Task) -> Start:
        """Faint noise."""
        return nudged(NUDGE)(task)

    def loss(self, task: Task, anchors: Anchors) -> Loss:
        """The formula of the class."""
        plain = anchors(task.clean)
        std = task.clean.new_tensor(task.segmenter.frame(*task.clean.shape[-2:]).std)[:, None, None]

        def value(features: Features, images: Tensor, active: Sequence[int]) -> Tensor:
            clean = task.clean if len(active) == len(task) else task.clean[list(active)]
            rough = self.eta * roughness((images - clean) / std, self.window)
            return rough - self.apart(features, rows(plain, active))

        return value

    def apart(self, features: Features, clean: Features) -> Tensor:
        """n distances of the normalised features."""
        return distance(power_normalised(features, self.power), power_normalised(clean, self.power))


def power_normalised(features: Features, power: float) -> Features:
    """sign(f) |f|^power, at least float32; slope zero where |f| is below 1e-6."""
    return [wide(f).sign() * wide(f).abs().clamp_min(FLAT).pow(power) for f in features]


def roughness(perturbation: Tensor, window: int) -> Tensor:
    """n: sum over channels and windows of |mean of the perturbation in the window|. Pixels left over at the right and
    bottom count for nothing; an image smaller than the window is one window."""
    size = [min(window, int(side)) for side in perturbation.shape[-2:]]
    return F.avg_pool2d(perturbation, size).abs().flatten(1).sum(1)
