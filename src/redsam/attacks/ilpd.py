"""ILPD: features pushed apart while their perturbation is decayed towards the clean ones (Li et al., 2023)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from redsam.attacks.feature import Features
from redsam.attacks.tap import TAP
from redsam.objectives import wide
from redsam.registry import register


@register("attack", "ilpd", paper="Improving Adversarial Transferability via Intermediate-level Perturbation Decay "
          "(Li et al.)", year=2023, url="https://arxiv.org/abs/2304.13410", norms=("linf",), kind="transfer",
          knowledge=("white-box", "transfer"), cost="steps gradients", features="blocks")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class ILPD(TAP):
    """TAP's loss on features whose perturbation is decayed: gamma * f(x') + (1 - gamma) * f(x) in place of f(x').

    As UAD's benchmark (2024) runs it on SAM: gamma 0.5, all else as `tap`. Deviation from Li et al., as in that
    benchmark: the decayed features are compared with the clean ones where they arise, whereas the paper puts them back
    at one block (gamma 0.1, clean image with noise of 0.05) and follows the classification loss at the end, which a
    segmentation model has not. Deviation from the benchmark: those of `tap`.
    """

    gamma: float = 0.5

    def apart(self, features: Features, clean: Features) -> Tensor:
        """n distances of the decayed, normalised features."""
        return super().apart(decayed(features, clean, self.gamma), clean)


def decayed(features: Features, clean: Features, gamma: float) -> Features:
    """clean + gamma * (features - clean), at least float32."""
    return [wide(c) + gamma * (wide(f) - wide(c)) for f, c in zip(features, clean, strict=True)]
