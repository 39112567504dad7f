"""UAP by contrast: a universal perturbation learned without labels or prompts (Han et al., 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from redsam.attacks.augment import draw, noise, recolour
from redsam.attacks.loop import Evaluate, Evaluation
from redsam.attacks.task import Task
from redsam.attacks.universal import Memory, UniversalAttack, rows
from redsam.errors import InputError
from redsam.registry import register

# Inferred, as usual in contrastive learning: colour factors in [0.8, 1.2] and a little noise.
COLOUR, GRAIN = 0.2, 0.03


@register("attack", "uap-contrast", paper="Segment Anything Meets Universal Adversarial Perturbation (Han et al.)",
          year=2023, url="https://arxiv.org/abs/2310.12431", norms=("linf",), kind="universal",
          knowledge=("white-box", "transfer"), cost="steps x (1 + samples) gradients, or none")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class UAPContrast(UniversalAttack):
    """InfoNCE on the encoder's final embedding: the adversarial feature is drawn towards those of `samples` augmented
    copies of the adversarial image (positives) and away from that of the clean image (negative).

    Known from the paper's abstract and summaries only: contrastive self-supervision, positives from augmentation, the
    clean feature as negative, features of other images matter little (they are left out). Inferred: cosine similarity,
    temperature 0.1, colour and noise as augmentation, 2 positives, step 1/255, 10 epochs, a start at random (the clean
    image is where the negative's gradient vanishes). Deviation: whatever the full text has otherwise. An image's copies
    are drawn once for all steps of its turn, so that losses of different steps can be compared.
    """

    samples: int = 2
    epochs: int = 10
    temperature: float = 0.1

    begins_at_random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise InputError(f"{self.samples} copies are too few.", hint="Give samples of at least 1.")

    def evaluator(self, task: Task, memory: Memory) -> Evaluate:
        generators = task.generators("uap-contrast")
        copies = []
        for _ in range(self.samples):
            factors = [draw(generators, 1 - COLOUR, 1 + COLOUR, task.clean) for _ in range(3)]
            copies.append((*factors, noise(generators, GRAIN, task.clean)))
        with torch.no_grad():
            clean = task.encode(task.clean).features

        def evaluate(images: Tensor, active: Sequence[int], progress: float) -> Evaluation:
            views = [images]
            for brightness, contrast, saturation, grain in copies:
                colours = (rows(v, active) for v in (brightness, contrast, saturation))
                views.append((recolour(images, *colours) + rows(grain, active)).clamp(0, 1))
            features = [task.encode(view).features for view in views]
            loss = contrast_loss(features[0], features[1:], [rows(clean, active)], self.temperature)
            return Evaluation(loss=loss, rank=loss.detach())

        return evaluate


def contrast_loss(
    anchor: Tensor, positives: Sequence[Tensor], negatives: Sequence[Tensor], temperature: float
) -> Tensor:
    """nxCxhxw features to n: InfoNCE, -log of the positives' share of exp(cosine / temperature), averaged over the
    positives, each against itself and all negatives."""

    def nearness(other: Tensor) -> Tensor:
        return F.cosine_similarity(anchor.float().flatten(1), other.float().flatten(1), dim=1) / temperature

    against = [nearness(n) for n in negatives]
    each = [torch.logsumexp(torch.stack([p, *against]), 0) - p for p in map(nearness, positives)]
    return torch.stack(each).mean(0)
