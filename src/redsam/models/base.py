"""Segmenter: a promptable model behind one differentiable, batched interface.

encode once, decode many prompts. Images are float32 3xHxW RGB in [0, 1] in original pixels and may differ in size;
prompts are in original-image pixels; masks come back in original pixels. Resizing, padding and normalising happen
inside and are differentiable. A family subclass fills three hooks: `frame`, `_embed` and `_decode_group`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from redsam.errors import InputError
from redsam.models import pipeline
from redsam.models.geometry import Frame
from redsam.models.prediction import Prediction
from redsam.models.values import Encoding, Images, Masks, ModelPrompts, Select
from redsam.prompts import Prompt


class Segmenter(ABC):
    """A promptable model. `name` is what the user typed, `family` the registry name of the subclass."""

    family: str = ""
    # Whether masks have gradients with regard to the image; a model that says no is attacked through its answers only.
    differentiable: bool = True
    # Which prompts it takes: texts, points and boxes, and of a model that takes these, masks.
    takes_text: bool = False
    takes_clicks: bool = True
    takes_masks: bool = True
    # Over how many of its random draws an attacker averages a gradient (see draws.py); 1 where nothing is drawn.
    draws: int = 1
    # Memory for what prompts keep until the backward pass; beyond it they are decoded in parts, and once more then.
    # 64 prompts on SAM keep 4 GB.
    decode_bytes: int = 4 * 2**30
    # Half precision for matrix products on the way of gradients (torch.autocast), never for exact answers.
    autocast: torch.dtype | None = None
    # The encoder as `compile` left it.
    compiled: Callable[[Tensor], tuple[Tensor, tuple[Tensor, ...]]] | None = None

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

    def stages(self) -> Sequence[nn.Module]:
        """The encoder's blocks in order, for attacks on intermediate features (see features.py)."""
        raise InputError(
            f"{self.name} ({self.family}) names no encoder blocks, so there are no intermediate features to attack.",
            hint="Attack its final features: --attack almost-nothing",
        )

    @property
    def undefended(self) -> Segmenter:
        """The model itself where this is one behind a defence, as `defense` says."""
        return self

    @property
    def defense(self) -> Mapping[str, Any] | None:
        """What stands in front of `undefended`, as JSON; None for a model by itself."""
        return None

    # --- hooks -----------------------------------------------------------------------------------------------------
    def prepare(self, images: Tensor, *, exact: bool) -> Tensor:
        """What is done to float Bx3xHxW images before anything else; a defence's place. Same shape and device; `exact`
        as in `encode`."""
        return images

    @abstractmethod
    def frame(self, height: int, width: int) -> Frame:
        """How an image of this size is laid into the model's own frame (pad or stretch, size, mean, std)."""

    @abstractmethod
    def _embed(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Normalised model-frame pixels Bx3xSxS to (features BxCxhxw, extra maps), with gradients."""

    @abstractmethod
    def _decode_group(
        self, features: Tensor, extra: tuple[Tensor, ...], prompts: ModelPrompts, *, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        """Decode G prompts of one structure, prompt g on features[g]; (GxMxhxw logits, GxM predicted IoU)."""

    def _decode_texts(self, encoding: Encoding, asked: Sequence[tuple[int, Prompt]]) -> tuple[Tensor, Tensor]:
        """Answer G texts, each (index of its image in the encoding, prompt); (Gx1xhxw logits, Gx1 predicted IoU)."""
        raise InputError(f"{self.name} ({self.family}) takes no text prompt.")

    def settle(self, images: Images, prompts: Sequence[Sequence[Prompt]]) -> Sequence[Sequence[Prompt]]:
        """The prompts as an attack starting from these clean images shall ask them; most models leave them alone."""
        return prompts

    def forms(self) -> Mapping[str, Segmenter]:
        """The ways in which an attack can follow this model's answers to a text, each as a model: one for most."""
        return {"end to end": self}

    # --- the public, final calls -----------------------------------------------------------------------------------
    @final
    def encode(self, images: Images, *, exact: bool = False) -> Encoding:
        """Bx3xHxW, or a list of 3xH_ixW_i, to an Encoding; gradients flow to the images.

        exact: reproduce the official processor's 8-bit resampling bit for bit (evaluation of a delivered image; the
        images must lie on the 8-bit lattice and get no gradient). Otherwise the same resampling in floating point.
        """
        return pipeline.encode(self, images, exact=exact)

    @final
    def decode(self, encoding: Encoding, prompts: Sequence[Sequence[Prompt]], *, multimask: bool = True) -> Prediction:
        """Masks for each image's prompts. Counts and kinds may differ from image to image and inside one: prompts of
        one structure (number of points, box or not, mask or not) are decoded together without padding tokens, so a
        batch equals a loop. A text has one mask, repeated where other prompts of the call have several."""
        return pipeline.decode(self, encoding, prompts, multimask=multimask)

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
        return pipeline.predict(self, images, prompts, select=select, reference=reference)

    def compile(self, **options: Any) -> None:
        """Let `torch.compile` make the encoder over, as an attack sees it: equal up to rounding. What is reported as
        the model's answer never comes from it. options: of torch.compile, such as mode="max-autotune"."""
        self.compiled = torch.compile(self._embed, **options)

    def fingerprint(self) -> str:
        """SHA-256 (first 16 hex digits) of the weights and their names: two models are one when this agrees."""
        digest = hashlib.sha256(type(self.model).__name__.encode())
        for key, value in sorted(self.model.state_dict().items()):
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]
