"""Objectives: what the attacker wants, as small functions. The attacker MINIMISES every one of them.

Kind "mask": `fn(logits NxHxW, reference NxHxW bool, *, progress) -> N`, one loss per prompt; logits are mask logits in
original pixels (mask = logit > 0), progress is steps taken / all steps. Kind "feature": `fn(features BxCxhxw, clean
BxCxhxw) -> B`, prompt-free, on the image encoder's final embedding.
Metadata: `on` mask|feature; `aim` away|towards, whether `reference` is the mask to destroy or the mask to produce;
`blind` when the value does not look at the reference; `scheduled` when it depends on progress, so that iterates of
different steps are ranked at progress 1.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from redsam.registry import register

# Attack-SAM section 3: logits are clipped at Neg_th = -10, below which a pixel counts as gone.
NEG_TH = -10.0
# The paper asks only for Pos_th > 0; deviation: we take the mirror image of Neg_th.
POS_TH = 10.0


class MaskObjective(Protocol):
    """NxHxW logits and NxHxW bool reference to N losses."""

    def __call__(self, logits: Tensor, reference: Tensor, *, progress: float) -> Tensor: ...


class FeatureObjective(Protocol):
    """BxCxhxw features, adversarial and clean, to B losses."""

    def __call__(self, features: Tensor, clean: Tensor) -> Tensor: ...


ATTACK_SAM = "https://arxiv.org/abs/2305.00866"
RED_TEAM = "https://arxiv.org/abs/2404.02067"
SEGPGD = "https://arxiv.org/abs/2207.12391"
UAD = "https://arxiv.org/abs/2404.02585"
ALMOST_NOTHING = "https://arxiv.org/abs/2311.14450"


@register("objective", "vanish", on="mask", aim="away", blind=True, paper="Attack-SAM", year=2023, url=ATTACK_SAM)
def vanish(logits: Tensor, reference: Tensor, *, progress: float = 1.0) -> Tensor:
    """ClipMSE, mask removal: mean over all pixels of (max(logit, -10) + 10)^2; pixels below -10 have zero gradient.

    Deviation: the mean instead of the sum of squares, so that the number does not grow with the image.
    """
    return (logits.clamp_min(NEG_TH) - NEG_TH).square().flatten(1).mean(1)


@register("objective", "enlarge", on="mask", aim="away", blind=True, paper="Attack-SAM", year=2023, url=ATTACK_SAM)
def enlarge(logits: Tensor, reference: Tensor, *, progress: float = 1.0) -> Tensor:
    """ClipMSE, mask enlargement: mean over all pixels of (min(logit, 10) - 10)^2; the mask should fill the image."""
    return (logits.clamp_max(POS_TH) - POS_TH).square().flatten(1).mean(1)


@register("objective", "mse", on="mask", aim="towards", paper="Red-Teaming SAM (FGSM*)", year=2024, url=RED_TEAM)
def mse(logits: Tensor, reference: Tensor, *, progress: float = 1.0) -> Tensor:
    """Mean squared error between sigmoid(logit) and a target mask, given as the reference (reversed, empty, drawn)."""
    return (logits.sigmoid() - reference.to(logits.dtype)).square().flatten(1).mean(1)


@register("objective", "bce", on="mask", aim="away", paper="PGD on cross-entropy (Madry et al.)", year=2018,
          url="https://arxiv.org/abs/1706.06083")  # fmt: skip
def bce(logits: Tensor, reference: Tensor, *, progress: float = 1.0) -> Tensor:
    """Minus the mean per-pixel binary cross-entropy against the reference: every pixel should flip."""
    return -_pixel_bce(logits, reference).flatten(1).mean(1)


@register("objective", "dice", on="mask", aim="away", paper="V-Net (Milletari et al.)", year=2016,
          url="https://arxiv.org/abs/1606.04797")  # fmt: skip
def dice(logits: Tensor, reference: Tensor, *, progress: float = 1.0) -> Tensor:
    """Soft Dice overlap 2 sum(p r) / (sum p^2 + sum r^2) with the reference, in [0, 1]; 0 when both are empty."""
    p, r = logits.sigmoid().flatten(1), reference.to(logits.dtype).flatten(1)
    return 2 * (p * r).sum(1) / (p.square().sum(1) + r.sum(1)).clamp_min(1e-12)


@register("objective", "segpgd", on="mask", aim="away", scheduled=True, paper="SegPGD (Gu et al.)", year=2022,
          url=SEGPGD)  # fmt: skip
def segpgd(logits: Tensor, reference: Tensor, *, progress: float = 1.0) -> Tensor:
    """Minus SegPGD's weighted cross-entropy: 1 - l on correct pixels, l on wrong ones, l = progress / 2, averaged.

    Deviation: SAM has one logit per pixel, so cross-entropy is binary and "correct" means its sign agrees with the
    reference. At progress 1 it is half of `bce`, by which iterates of different steps are ranked.
    """
    wrong_weight = progress / 2
    correct = (logits > 0) == reference.bool()
    weight = torch.where(correct, 1 - wrong_weight, wrong_weight)
    return -(weight * _pixel_bce(logits, reference)).flatten(1).mean(1)


@register("objective", "feature-cosine", on="feature", paper="UAD, fidelity term (Lu et al.)", year=2024, url=UAD)
def feature_cosine(features: Tensor, clean: Tensor) -> Tensor:
    """Cosine of the flattened embeddings of adversarial and clean image, in [-1, 1].

    Its gradient is zero at the clean image: attacks start from a random point when they follow it.
    """
    return F.cosine_similarity(wide(features).flatten(1), wide(clean).flatten(1), dim=1)


@register("objective", "feature-l2", on="feature", paper="Segment (Almost) Nothing (Croce & Hein)", year=2024,
          url=ALMOST_NOTHING)  # fmt: skip
def feature_l2(features: Tensor, clean: Tensor) -> Tensor:
    """Minus the l2 distance between the flattened embeddings; zero gradient at the clean image, as `feature-cosine`."""
    distance: Tensor = torch.linalg.vector_norm((wide(features) - wide(clean)).flatten(1), dim=1)
    return -distance


def wide(features: Tensor) -> Tensor:
    """Half precision cannot hold a sum of squares over an embedding."""
    return features if features.dtype == torch.float64 else features.float()


def _pixel_bce(logits: Tensor, reference: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, reference.to(logits.dtype), reduction="none")
