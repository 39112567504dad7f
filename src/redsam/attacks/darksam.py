"""DarkSAM: a universal perturbation after which random prompts find nothing (Zhou et al., NeurIPS 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redsam.attacks.loop import Evaluate, Evaluation
from redsam.attacks.scanning import Kind, answers, random_prompts, size_of
from redsam.attacks.task import Task
from redsam.attacks.universal import Memory, UniversalAttack, rows
from redsam.attacks.wavelet import haar
from redsam.registry import register

# Published: spatial 1 on the foreground and 0.1 on the background; frequency 1 on low and 0.01 on high bands.
BACKGROUND, LOW, HIGH = 0.1, 1.0, 0.01


@register("attack", "darksam", paper="DarkSAM: Fooling Segment Anything Model to Segment Nothing (Zhou et al.)",
          year=2024, url="https://arxiv.org/abs/2409.17874", norms=("linf",), kind="universal",
          knowledge=("white-box", "transfer"), cost="steps gradients, none with an artefact")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class DarkSAM(UniversalAttack):
    """Shadow target strategy: the masks of random prompts on the clean image, merged, are the blueprint of what is to
    vanish. Spatial loss: logits to tau inside the blueprint and to -tau outside. Frequency loss: the Haar low band of
    the image stays, the high bands are pushed away.

    Published: eps 10/255, step 1/255, 10 random prompts (points or boxes) per image, tau -1, one pass over 100 images
    one by one. Inferred: the blueprint is the union of the prompts' masks; 10 steps on each training image; 40 steps
    for the image-specific variant, which the paper does not have; the high bands are all three but the average.
    Deviation: the paper's loss is descended, on the model's own normalisation; the public code ascends it by the sign
    of a gradient scaled with the loss, on un-normalised images. Logits are taken in the decoder's frame without
    padding, averaged over pixels and prompts. Squared differences of bands are summed over the image in its own pixels,
    not at 1024. `keep_best` delivers the best iterate of the image-specific variant.
    """

    inner: int = 10
    samples: int = 10
    prompt: Kind = "point"
    tau: float = -1.0

    def evaluator(self, task: Task, memory: Memory) -> Evaluate:
        prompts = [random_prompts(size_of(task), self.samples, self.prompt, g) for g in task.generators("darksam")]
        with torch.no_grad():
            blueprint = (answers(task, task.encode(task.clean), prompts, self.select) > 0).any(1)

        def evaluate(images: Tensor, active: Sequence[int], progress: float) -> Evaluation:
            logits = answers(task, task.encode(images), [prompts[i] for i in active], self.select)
            loss = spatial(logits, rows(blueprint, active), self.tau) + frequency(images, rows(task.clean, active))
            return Evaluation(loss=loss, rank=loss.detach())

        return evaluate


def spatial(logits: Tensor, blueprint: Tensor, tau: float) -> Tensor:
    """nxPxhxw logits and nxhxw bool to n: mean of (fg (logit - tau))^2 plus 0.1 times that of (bg (logit + tau))^2,
    over all pixels and prompts."""
    inside = blueprint[:, None].to(logits.dtype)
    lost = (inside * (logits - tau)).square().flatten(1).mean(1)
    found = ((1 - inside) * (logits + tau)).square().flatten(1).mean(1)
    return lost + BACKGROUND * found


def frequency(images: Tensor, clean: Tensor) -> Tensor:
    """nx3xHxW to n: summed squared change of the Haar average minus 0.01 times that of the three other bands; the
    transform is linear and orthonormal, so this is the change of the images rebuilt from those bands."""
    low, *high = (band.square().flatten(1).sum(1) for band in haar(images - clean))
    return LOW * low - HIGH * torch.stack(high).sum(0)
