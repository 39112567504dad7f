"""TextSegmenter: a model that answers a text, and how instances become the one mask of a text prompt.

A text has no or many instances on an image, a prompt has one mask. So: mask = union of the masks of the instances whose
score is above the model's published threshold, empty when none is. logits = maximum over these instances of
min(mask logit, margin), where margin is 10 (score - threshold) / threshold: above 0 exactly where the published
pipeline answers, and a gradient reaches both what the mask looks like and whether it is there at all. Where no score
is above the threshold, the best instance stands with its negative margin: an empty mask that still has a gradient.
Deviation: the maximum is taken in the decoder's low-resolution frame, before masks are resized, so the seam between two
instances that touch closes by less than one low-resolution pixel.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from redsam.errors import InputError
from redsam.models import pipeline
from redsam.models.base import Segmenter
from redsam.models.geometry import MASK_LOGIT
from redsam.models.values import Encoding
from redsam.prompts import Box, text

# Instances kept of one text, best first: memory for the masks of more is not worth what they add.
MAX_INSTANCES = 100


@dataclass(frozen=True, kw_only=True)
class Detection:
    """One instance of what a text names. box: (x0, y0, x1, y1) in original pixels, inside the image. score: the
    model's confidence in [0, 1]. label: the words of the text that the box stands for, where the model can tell."""

    box: Box
    score: float
    label: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Instances:
    """What a text finds on an image, best first, with gradients. boxes: Kx4 (x0, y0, x1, y1) in original pixels, not
    clipped. scores: K in [0, 1]. labels: K words, or empty."""

    boxes: Tensor
    scores: Tensor
    labels: tuple[str, ...] = ()


class TextSegmenter(Segmenter):
    """A model that takes Prompt(text=...). threshold: the score above which an instance counts, as published."""

    takes_text = True
    threshold: float = 0.5

    @final
    @torch.no_grad()
    def detect(self, image: Tensor, what: str) -> list[Detection]:
        """Instances of `what` on a 3xHxW image with scores above the threshold, best first; none is an empty list.

        Preprocessing is the official one, so the image must lie on the 8-bit lattice. Raises InputError.
        """
        return self.detect_all(image, [what])[0]

    @final
    @torch.no_grad()
    def detect_all(self, image: Tensor, texts: Sequence[str]) -> list[list[Detection]]:
        """`detect` for every text, the image encoded once."""
        asked = [str(text(what).text) for what in texts]
        encoding = pipeline.encode(self, [image], exact=True)
        height, width = int(image.shape[-2]), int(image.shape[-1])
        return [self._counting(found, height, width) for found in self._many(encoding, asked)]

    def _many(self, encoding: Encoding, texts: Sequence[str]) -> list[Instances]:
        """`_instances` of several texts on the first image; those below the threshold may be missing."""
        return [self._instances(encoding, 0, what) for what in texts]

    def _counting(self, found: Instances, height: int, width: int) -> list[Detection]:
        """Those above the threshold, cut to the image."""
        out = []
        for k in range(len(found.scores)):
            x0, y0, x1, y1 = (float(v) for v in found.boxes[k])
            inside = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
            if float(found.scores[k]) > self.threshold and inside[2] > inside[0] and inside[3] > inside[1]:
                label = found.labels[k] if found.labels else ""
                out.append(Detection(box=inside, score=float(found.scores[k]), label=label))
        return out

    @abstractmethod
    def _instances(self, encoding: Encoding, owner: int, what: str) -> Instances:
        """What a text finds on one image of the encoding, best first, those below the threshold too."""


def strongest(scores: Tensor, threshold: float) -> Tensor:
    """Indices of the scores above the threshold, best first, at most MAX_INSTANCES; the best one where none is."""
    order = scores.detach().argsort(descending=True, stable=True)
    count = int((scores.detach() > threshold).sum())
    return order[: max(1, min(count, MAX_INSTANCES))]


def margin(scores: Tensor, threshold: float) -> Tensor:
    """10 (score - threshold) / threshold: -10 at score 0, above 0 where the instance counts; in mask-logit units."""
    return MASK_LOGIT * (scores - threshold) / threshold


def union(masks: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Kxhxw mask logits of K >= 1 instances to the hxw logits of their union (see above)."""
    return torch.minimum(masks, margin(scores, threshold)[:, None, None].to(masks.dtype)).amax(0)


class Uncut(TorchFunctionMode):
    """Inside this context `Tensor.detach` passes its tensor on, in this thread only.

    DETR-like decoders cut the gradient between their refinement steps, which steadies training; an attacker wants the
    true derivative of the boxes with regard to the image.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.detach and torch.is_grad_enabled():
            return args[0]
        return func(*args, **(kwargs or {}))


def tokens(
    tokenizer: Any, texts: Sequence[str], *, limit: int, device: torch.device, fixed: bool = False
) -> dict[str, Tensor]:
    """Token ids and masks of texts, padded to the longest, or to `limit` when `fixed`. Raises InputError without a
    tokenizer and for a text of more than `limit` tokens: cut off, it would be another text."""
    if tokenizer is None:
        raise InputError(
            "The model has no tokenizer, so it cannot read a text.",
            hint="Save the tokenizer into the model's folder: tokenizer.save_pretrained(FOLDER).",
        )
    for one in texts:
        count = len(tokenizer(one)["input_ids"])
        if count > limit:
            raise InputError(
                f"The text '{one[:40]}...' is {count} tokens long, the model reads {limit}.", hint="Ask for less."
            )
    padding = {"padding": "max_length", "max_length": limit} if fixed else {"padding": True}
    out = tokenizer(list(texts), return_tensors="pt", **padding)
    return {key: value.to(device) for key, value in out.items()}


def attach(model: nn.Module, tokenizer: Any) -> nn.Module:
    """Give a network the tokenizer its text encoder was trained with; it travels as a plain attribute."""
    object.__setattr__(model, "tokenizer", tokenizer)
    return model
