"""Bring your own model: wrap any promptable `nn.Module` with two functions, no subclass needed.

    segmenter = wrap(net, image_size=512, embed=net.encode, decode=my_decode)

`embed(pixels Bx3xSxS) -> features BxCxhxw`, or a tuple (features, *further maps). `decode(features, *extra, points=...,
labels=..., boxes=..., masks=..., multimask=...) -> (logits GxMxhxw, predicted IoU GxM)`: row g answers prompt g on
features[g]; points Gx1xNx2 (x, y), labels Gx1xN (1 inside, 0 outside), boxes Gx1x4 and masks Gx1xhxw are in model
pixels, and what the prompt does not have is None. Both must be differentiable (or say `differentiable=False`); redsam
does the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from torch import Tensor, nn

from redsam.errors import InputError
from redsam.models.base import Segmenter
from redsam.models.geometry import IMAGENET_MEAN, IMAGENET_STD, Frame, Kind, Rgb
from redsam.models.values import ModelPrompts

Embed = Callable[[Tensor], Tensor | tuple[Tensor, ...]]
Decode = Callable[..., tuple[Tensor, Tensor]]


class Custom(Segmenter):
    """A user's module behind the interface; made by `wrap`."""

    family = "custom"

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str,
        embed: Embed,
        decode: Decode,
        frame: dict[str, Any],
        mask_size: tuple[int, int] | None,
        differentiable: bool = True,
    ) -> None:
        super().__init__(model, name=name)
        self.differentiable = differentiable
        self._own_embed, self._own_decode, self._own_frame, self._own_mask_size = embed, decode, frame, mask_size

    @property
    def mask_size(self) -> tuple[int, int]:
        """As given to `wrap`; InputError when the model takes no mask prompt."""
        if self._own_mask_size is None:
            raise InputError(f"{self.name} takes no mask prompt.", hint="Give wrap(..., mask_size=(h, w)).")
        return self._own_mask_size

    def frame(self, height: int, width: int) -> Frame:
        """The frame given to `wrap`."""
        return Frame(height=height, width=width, **self._own_frame)

    def _embed(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        out = self._own_embed(pixels)
        return (out, ()) if isinstance(out, Tensor) else (out[0], tuple(out[1:]))

    def _decode_group(
        self, features: Tensor, extra: tuple[Tensor, ...], prompts: ModelPrompts, *, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        logits, iou = self._own_decode(features, *extra, **vars(prompts), multimask=multimask)
        if logits.ndim != 4 or iou.shape != logits.shape[:2] or len(logits) != len(features):
            raise InputError(
                f"decode of {self.name} gave {tuple(logits.shape)} and {tuple(iou.shape)} for {len(features)} prompts.",
                hint="Return logits GxMxhxw and predicted IoU GxM.",
            )
        return logits, iou


def wrap(
    module: nn.Module,
    *,
    image_size: int,
    embed: Embed,
    decode: Decode,
    kind: Kind = "pad",
    mean: Rgb = IMAGENET_MEAN,
    std: Rgb = IMAGENET_STD,
    mask_size: tuple[int, int] | None = None,
    name: str = "custom",
    differentiable: bool = True,
) -> Segmenter:
    """A Segmenter from a module and two functions (see above). image_size: side of the model's square input.

    kind: "pad" keeps the aspect and pads bottom and right, "stretch" does not. mean, std: of RGB in [0, 1]. mask_size:
    (h, w) of the logits a mask prompt becomes, None if the model takes none. differentiable: False for a model that
    only answers (a remote service, a quantised graph): white-box attacks then refuse it by name. The module is set to
    eval, its weights to no gradient.
    """
    frame = cast(dict[str, Any], {"kind": kind, "side": image_size, "mean": mean, "std": std})
    return Custom(
        module, name=name, embed=embed, decode=decode, frame=frame, mask_size=mask_size, differentiable=differentiable
    )
