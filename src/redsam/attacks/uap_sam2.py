"""UAP-SAM2, image variant: semantic confusion over the whole image and a shift of features (Zhou et al., 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from redsam.attacks.augment import draw, noise, recolour, rotate
from redsam.attacks.loop import Evaluate, Evaluation
from redsam.attacks.scanning import answers, scan, size_of
from redsam.attacks.task import Task
from redsam.attacks.universal import Memory, UniversalAttack, momentum, rows
from redsam.errors import InputError
from redsam.registry import register

# Augmented copies of the clean image that make the prototype: count, rotation, noise, colour (the authors' code).
COPIES, DEGREES, GRAIN, COLOUR = 3, 15.0, 0.03, 0.2
FOREIGN = 30  # images whose features attract (the authors' code: 30 foreign videos)


@register("attack", "uap-sam2", paper="Vanish into Thin Air: Cross-prompt Universal Adversarial Attacks for SAM2 "
          "(Zhou et al.)", year=2025, url="https://arxiv.org/abs/2510.24195", norms=("linf",), kind="universal",
          knowledge=("white-box", "transfer"), cost="steps gradients, none with an artefact")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class UAPSAM2(UniversalAttack):
    """J_sa + J_fa. Target scanning: the image is split into 256 regions, one random point in each is a prompt. J_sa
    pushes the logits of each prompt's clean mask down and all others up, as printed: BCE with target -1 inside, and of
    one minus the logit with target 0 outside. J_fa (InfoNCE, temperature 0.1) pushes the feature away from a prototype,
    the mean feature of 3 augmented clean copies, and draws it towards foreign images.

    Published: eps 10/255 universal and 8/255 sample-wise, step 2/255 (code), 10 epochs, one frame at a time, gradients
    averaged with 0.95 (code). Inferred: each point is a prompt of its own; f in J_sa are logits; 40 steps sample-wise.
    Deviation: J_ma, which compares frames of a video, is left out. Foreign features are those of the last 30 training
    images; the sample-wise variant has none and only pushes. Cosines with weight 1 as the text has it, where the code
    takes raw dot products times 1e-6. The copies' colour leaves the hue alone (the code turns it by 0.08). J_sa is
    averaged over the decoder's pixels and all prompts. `keep_best` delivers the best sample-wise iterate.
    """

    samples: int = 256
    step_size: float = 2 / 255
    epochs: int = 10
    temperature: float = 0.1
    decay: float = 0.95

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise InputError(f"{self.samples} regions are too few.", hint="Give samples of at least 1.")

    def smooth(self, gradient: Tensor, memory: Memory) -> Tensor:
        return momentum(self.decay, gradient, memory)

    def evaluator(self, task: Task, memory: Memory) -> Evaluate:
        prompts = [scan(size_of(task), self.samples, g) for g in task.generators("scan")]
        with torch.no_grad():
            encoding = task.encode(task.clean)
            masks = answers(task, encoding, prompts, self.select) > 0
            prototype = self.prototype(task)
        foreign = memory.get("foreign", encoding.features[:0])
        # In a training this image is foreign to those that follow; elsewhere `memory` ends with the search.
        memory["foreign"] = torch.cat([foreign, encoding.features])[-FOREIGN:]

        def evaluate(images: Tensor, active: Sequence[int], progress: float) -> Evaluation:
            encoding = task.encode(images)
            logits = answers(task, encoding, [prompts[i] for i in active], self.select)
            loss = confusion(logits, rows(masks, active))
            loss = loss + feature_shift(encoding.features, rows(prototype, active), foreign, self.temperature)
            return Evaluation(loss=loss, rank=loss.detach())

        return evaluate

    def prototype(self, task: Task) -> Tensor:
        """BxCxhxw mean feature of augmented copies of the clean images."""
        generators, total = task.generators("prototype"), []
        for _ in range(COPIES):
            turned = rotate(task.clean, draw(generators, -DEGREES, DEGREES, task.clean))
            factors = [draw(generators, 1 - COLOUR, 1 + COLOUR, task.clean) for _ in range(3)]
            copy = (recolour(turned, *factors) + noise(generators, GRAIN, task.clean)).clamp(0, 1)
            total.append(task.encode(copy).features)
        return torch.stack(total).mean(0)


def confusion(logits: Tensor, masks: Tensor) -> Tensor:
    """J_sa. nxPxhxw logits and bool masks to n: BCE(z m, -m) + BCE((1 - z) (1 - m), 0) on logits, averaged. BCE with
    target y is softplus(u) - y u, which at y = -1 still falls where u is far below 0."""
    inside = masks.to(logits.dtype)
    lost, raised = logits * inside, (1 - logits) * (1 - inside)
    return (F.softplus(lost) + inside * lost + F.softplus(raised)).flatten(1).mean(1)


def feature_shift(features: Tensor, prototype: Tensor, foreign: Tensor, temperature: float) -> Tensor:
    """J_fa. nxCxhxw features, prototypes, and KxCxhxw foreign ones to n: -log of the foreign share of
    exp(cosine / temperature) against the prototype; without foreign ones cosine / temperature itself."""
    flat = F.normalize(features.float().flatten(1), dim=1)
    own = (flat * F.normalize(prototype.float().flatten(1), dim=1)).sum(1) / temperature
    if not len(foreign):
        return own
    others = torch.logsumexp(flat @ F.normalize(foreign.float().flatten(1), dim=1).T / temperature, dim=1)
    return torch.logaddexp(own, others) - others
