"""DarkSAM: a universal perturbation after which random prompts find nothing (Zhou et al., NeurIPS 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from redsam.attacks.loop import Evaluate, Evaluation
from redsam.attacks.scanning import Kind, answers, random_prompts, size_of
from redsam.attacks.task import Task
from redsam.attacks.universal import Memory, UniversalAttack, rows
from redsam.attacks.wavelet import haar
from redsam.errors import InputError
from redsam.registry import register

# Published: spatial 1 on the foreground and 0.1 on the background; frequency 1 on low and 0.01 on high bands.
BACKGROUND, LOW, HIGH = 0.1, 1.0, 0.01
Reduction = Literal["mean", "sum"]


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
    padding, averaged over pixels and prompts. Squared differences of bands are averaged over the image in its own
    pixels (`bands` "mean"); the code sums them ("sum"), and descending that leaves every sign to the low band: on one
    photograph with lab-b at eps 10/255 the masks then stay as they are (IoU 0.99 after 40 steps, 0.66 with the mean).
    `keep_best` delivers the best iterate of the image-specific variant.
    """

    inner: int = 10
    samples: int = 10
    prompt: Kind = "point"
    tau: float = -1.0
    bands: Reduction = "mean"

    def __post_init__(self) -> None:
        if self.bands not in get_args(Reduction):
            raise InputError(f"bands is '{self.bands}'.", hint="Choose mean or sum.")
        if self.samples < 1:
            raise InputError(f"{self.samples} random prompts show nothing.", hint="Give samples of at least 1.")

    def evaluator(self, task: Task, memory: Memory) -> Evaluate:
        prompts = [random_prompts(size_of(task), self.samples, self.prompt, g) for g in task.generators("darksam")]
        with torch.no_grad():
            blueprint = (answers(task, task.encode(task.clean), prompts, self.select) > 0).any(1)

        def evaluate(images: Tensor, active: Sequence[int], progress: float) -> Evaluation:
            logits = answers(task, task.encode(images), [prompts[i] for i in active], self.select)
            loss = spatial(logits, rows(blueprint, active), self.tau)
            loss = loss + frequency(images, rows(task.clean, active), self.bands)
            return Evaluation(loss=loss, rank=loss.detach())

        return evaluate


def spatial(logits: Tensor, blueprint: Tensor, tau: float) -> Tensor:
    """nxPxhxw logits and nxhxw bool to n: mean of (fg (logit - tau))^2 plus 0.1 times that of (bg (logit + tau))^2,
    over all pixels and prompts."""
    inside = blueprint[:, None].to(logits.dtype)
    lost = (inside * (logits - tau)).square().flatten(1).mean(1)
    found = ((1 - inside) * (logits + tau)).square().flatten(1).mean(1)
    return lost + BACKGROUND * found


def frequency(images: Tensor, clean: Tensor, reduction: Reduction) -> Tensor:
    """nx3xHxW to n: squared change of the Haar average minus 0.01 times that of the three other bands, summed over the
    image or divided by its number of values. The transform is linear and orthonormal, so this is the squared change of
    the images rebuilt from those bands."""
    low, *high = (band.square().flatten(1).sum(1) for band in haar(images - clean))
    total = LOW * low - HIGH * torch.stack(high).sum(0)
    return total if reduction == "sum" else total / clean[0].numel()
