"""What travels between a Segmenter and the pipeline: encodings, prompts in its frame, masks, hooks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

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
    frames: how each image was laid into the model's own frame. images: the images themselves, 3xH_ixW_i, for models
    whose answer to a text needs a second look at them (empty for all others); exact: as `Segmenter.encode` was told."""

    features: Tensor
    extra: tuple[Tensor, ...]
    frames: tuple[Frame, ...]
    images: tuple[Tensor, ...] = ()
    exact: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Masks:
    """Final answer for one image: masks bool PxHxW, logits PxHxW, iou P (predicted IoU of the chosen mask),
    choice P (index of the mask chosen among the multi-mask outputs)."""

    masks: Tensor
    logits: Tensor
    iou: Tensor
    choice: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelPrompts:
    """G prompts of one structure in the model's own frame; what they do not have is None. points: Gx1xNx2 (x, y).
    labels: Gx1xN, 1 inside, 0 outside. boxes: Gx1x4. masks: Gx1xhxw logits. owners, frames: G, the image that each is
    asked on and how that is laid, for models that choose among masks in original pixels."""

    points: Tensor | None = None
    labels: Tensor | None = None
    boxes: Tensor | None = None
    masks: Tensor | None = None
    owners: tuple[int, ...] = ()
    frames: tuple[Frame, ...] = ()


class Hooks(Protocol):
    """What the pipeline asks of a Segmenter; see `Segmenter` for each."""

    name: str
    family: str
    takes_text: bool
    takes_clicks: bool
    decode_bytes: int
    autocast: torch.dtype | None
    compiled: Callable[[Tensor], tuple[Tensor, tuple[Tensor, ...]]] | None

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def mask_size(self) -> tuple[int, int]: ...

    def prepare(self, images: Tensor, *, exact: bool) -> Tensor: ...

    def frame(self, height: int, width: int) -> Frame: ...

    def _embed(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]: ...

    def _decode_group(
        self, features: Tensor, extra: tuple[Tensor, ...], prompts: ModelPrompts, *, multimask: bool
    ) -> tuple[Tensor, Tensor]: ...

    def _decode_texts(self, encoding: Encoding, asked: Sequence[tuple[int, Prompt]]) -> tuple[Tensor, Tensor]: ...
