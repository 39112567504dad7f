"""Segmenter: a promptable model behind one differentiable, batched interface.

encode once, decode many prompts. Images are float32 3xHxW RGB in [0, 1] in original pixels and may differ in size;
prompts are in original-image pixels; masks come back in original pixels. Resizing, padding and normalising happen
inside and are differentiable. A family subclass fills three hooks: `frame`, `_embed` and `_decode_group`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn

from redsam.errors import InputError
from redsam.models.geometry import Frame
from redsam.prompts import Prompt

Images = Tensor | Sequence[Tensor]
Select = Literal["iou", "area", "best", "single"]
# How one of the multi-mask outputs is chosen: highest predicted IoU, largest area, best IoU against the reference
# (an oracle, never a user's), or "single": the decoder's own single-mask token (multimask_output=False).


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoding:
    """What one encoder pass leaves. features: BxCxhxw final embedding (what feature attacks see), differentiable with
    regard to the images. extra: further maps that the decoder wants (SAM 2's high-resolution levels, HQ's early ones).
    frames: how each image was laid into the model's own frame."""

    features: Tensor
    extra: tuple[Tensor, ...]
    frames: tuple[Frame, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """Masks of N prompts over B images, still in the model's own low-resolution frame.

    low_res: NxMxhxw logits (M masks per prompt). iou: NxM predicted IoU. owner: N, the image each prompt belongs to, in
    image order, prompts of one image in the order given. `logits` brings them to original pixels.
    """

    low_res: Tensor
    iou: Tensor
    owner: tuple[int, ...]
    frames: tuple[Frame, ...]

    def logits(self, *, select: Select = "iou", reference: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Per image the P_i x H_i x W_i logits of the selected mask. `reference` (bool P_i x H_i x W_i) for "best"."""
        from redsam.models.select import select_logits

        return select_logits(self, select=select, reference=reference)[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class Masks:
    """Final answer for one image: masks bool PxHxW, logits PxHxW, iou P (predicted IoU of the chosen mask),
    choice P (index of the mask chosen among the multi-mask outputs)."""

    masks: Tensor
    logits: Tensor
    iou: Tensor
    choice: Tensor


class Segmenter(ABC):
    """A promptable model. `name` is what the user typed, `family` the registry name of the subclass."""

    family: str = ""

    def __init__(self, model: nn.Module, *, name: str) -> None:
        self.model = model.eval().requires_grad_(False)
        self.name = name

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' floating type; images stay float32 outside and are cast inside."""
        return next(self.model.parameters()).dtype

    @property
    def mask_size(self) -> tuple[int, int]:
        """(h, w) of the logits a mask prompt becomes; 4 x the embedding in every published family."""
        raise InputError(f"{self.name} ({self.family}) takes no mask prompt.")

    # --- hooks -----------------------------------------------------------------------------------------------------
    @abstractmethod
    def frame(self, height: int, width: int) -> Frame:
        """How an image of this size is laid into the model's own frame (pad or stretch, size, mean, std)."""

    @abstractmethod
    def _embed(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Normalised model-frame pixels Bx3xSxS to (features BxCxhxw, extra maps), with gradients."""

    @abstractmethod
    def _decode_group(
        self,
        features: Tensor,
        extra: tuple[Tensor, ...],
        *,
        points: Tensor | None,
        labels: Tensor | None,
        boxes: Tensor | None,
        masks: Tensor | None,
        multimask: bool,
    ) -> tuple[Tensor, Tensor]:
        """Decode G prompts of one structure, prompt g on features[g]. Frames are the model's own: points Gx1xNx2,
        labels Gx1xN, boxes Gx1x4, masks Gx1xhxw logits. Returns (GxMxhxw logits, GxM predicted IoU)."""

    # --- the public, final calls -----------------------------------------------------------------------------------
    @final
    def encode(self, images: Images, *, exact: bool = False) -> Encoding:
        """Bx3xHxW, or a list of 3xH_ixW_i, to an Encoding; gradients flow to the images.

        exact: reproduce the official processor's 8-bit resampling bit for bit (evaluation of a delivered image; the
        images must lie on the 8-bit lattice and get no gradient). Otherwise the same resampling in floating point.
        """
        from redsam.models.pipeline import encode

        return encode(self, images, exact=exact)

    @final
    def decode(self, encoding: Encoding, prompts: Sequence[Sequence[Prompt]], *, multimask: bool = True) -> Prediction:
        """Masks for each image's prompts. Counts and kinds may differ from image to image and inside one: prompts of
        one structure (number of points, box or not, mask or not) are decoded together without padding tokens, so a
        batch equals a loop."""
        from redsam.models.pipeline import decode

        return decode(self, encoding, prompts, multimask=multimask)

    @final
    @torch.no_grad()
    def predict(
        self,
        images: Images,
        prompts: Sequence[Sequence[Prompt]],
        *,
        select: Select = "iou",
        reference: Sequence[Tensor] | None = None,
    ) -> list[Masks]:
        """The model's final answer per image, as users get it: exact preprocessing, no gradient, mask = logit > 0."""
        from redsam.models.pipeline import predict

        return predict(self, images, prompts, select=select, reference=reference)

    def fingerprint(self) -> str:
        """SHA-256 (first 16 hex digits) of the weights and their names: two models are one when this agrees."""
        digest = hashlib.sha256(type(self.model).__name__.encode())
        for key, value in sorted(self.model.state_dict().items()):
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]
