"""Frame: how one image is laid into a model's own square frame, and the way back for masks.

Two kinds. `pad` (SAM, SAM-HQ): longest side to the model's side, aspect kept, padded with zeros at the bottom and on
the right after normalising. `stretch` (SAM 2, SAM 3, EdgeTAM): both sides to the model's side. Everything on the
floating-point path is differentiable.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from redsam.models.resample import resize, resize_like_pillow, resize_like_torchvision

Kind = Literal["pad", "stretch"]
Rgb = tuple[float, float, float]

IMAGENET_MEAN: Rgb = (0.485, 0.456, 0.406)
IMAGENET_STD: Rgb = (0.229, 0.224, 0.225)
# A mask prompt becomes logits of this size: SAM 2 (2024) feeds a given mask as 20 * m - 10 (out_scale, out_bias); SAM
# takes the logits of an earlier answer, whose confident values have the same order.
MASK_LOGIT = 10.0
# Largest side of a low-resolution mask that is enlarged by matrix products where a gradient is wanted; beyond it their
# cost, which grows with the side, passes that of `interpolate`.
SMALL = 128


@dataclass(frozen=True, kw_only=True)
class Frame:
    """height, width: the original image. side: the model's input side in pixels. mean, std: of RGB in [0, 1]."""

    kind: Kind
    height: int
    width: int
    side: int
    mean: Rgb = IMAGENET_MEAN
    std: Rgb = IMAGENET_STD

    @property
    def content(self) -> tuple[int, int]:
        """(height, width) that the resized image fills, from the top left corner. Rounds as the official processor."""
        if self.kind == "stretch":
            return self.side, self.side
        scale = self.side * 1.0 / max(self.height, self.width)
        return max(int(self.height * scale + 0.5), 1), max(int(self.width * scale + 0.5), 1)

    # --- images in -------------------------------------------------------------------------------------------------
    def fit(self, images: Tensor) -> Tensor:
        """Float Bx3xHxW in [0, 1], all of this frame's size, to normalised Bx3xSxS, differentiable."""
        return self._normalise(resize(images, self.content))

    def fit_exact(self, images: Tensor) -> Tensor:
        """uint8 Bx3xHxW to normalised float32 Bx3xSxS with the official processor's own 8-bit resampling."""
        shrink = resize_like_pillow if self.kind == "pad" else resize_like_torchvision
        return self._normalise(shrink(images, self.content).to(torch.float32) / 255)

    def _normalise(self, images: Tensor) -> Tensor:
        mean, std = (images.new_tensor(v)[:, None, None] for v in (self.mean, self.std))
        out = (images - mean) / std
        bottom, right = self.side - out.shape[-2], self.side - out.shape[-1]
        return F.pad(out, (0, right, 0, bottom)) if bottom or right else out

    # --- prompts in ------------------------------------------------------------------------------------------------
    def coordinates(self, xy: Tensor) -> Tensor:
        """...x2 (x, y) in original pixels to the model's frame, in the input's precision (float64 as the processor)."""
        height, width = self.content
        return xy * xy.new_tensor([width / self.width, height / self.height])

    def mask_prompt(self, mask: NDArray[np.bool_], size: tuple[int, int]) -> Tensor:
        """HxW bool to 1 x h x w logits in the model's low-resolution frame, +-10, soft where an edge runs through."""
        grey = torch.from_numpy(np.ascontiguousarray(mask)).to(torch.float32)[None, None]
        grey = resize(grey, self.content)
        grey = F.pad(grey, (0, self.side - grey.shape[-1], 0, self.side - grey.shape[-2]))
        return (resize(grey, size)[0] * 2 - 1) * MASK_LOGIT

    # --- masks out -------------------------------------------------------------------------------------------------
    def logits(self, low_res: Tensor) -> Tensor:
        """NxMxhxw logits of this image to NxMxHxW in original pixels, as the official `post_process_masks`.

        Bit for bit without a gradient, which is how masks are measured. Small maps with a gradient go through the same
        weights as two matrix products, equal up to rounding: on a CPU the backward pass of `interpolate` costs as much
        as half a small encoder.
        """
        if low_res.requires_grad and max(low_res.shape[-2:]) <= SMALL:
            rows, columns = _weights(self, (int(low_res.shape[-2]), int(low_res.shape[-1])))
            return rows.to(low_res) @ low_res @ columns.to(low_res)
        out = low_res
        if self.kind == "pad":  # to model pixels, cut the padding off, then to original pixels
            out = F.interpolate(out, (self.side, self.side), mode="bilinear", align_corners=False)
            height, width = self.content
            out = out[..., :height, :width]
            if (height, width) == (self.height, self.width):  # would weigh every pixel with one
                return out
        return F.interpolate(out, (self.height, self.width), mode="bilinear", align_corners=False)


@lru_cache(maxsize=64)
def _weights(frame: Frame, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """float32 Hxh and wxW whose products with hxw logits, from the left and from the right, are `Frame.logits`."""
    made = []
    for n, side, out in zip(size, frame.content, (frame.height, frame.width), strict=True):
        line = torch.eye(n)[None]  # in float32, so that the weights are the official ones
        if frame.kind == "pad":
            line = F.interpolate(line, frame.side, mode="linear", align_corners=False)[..., :side]
        made.append(F.interpolate(line, out, mode="linear", align_corners=False)[0])
    return made[0].T.contiguous(), made[1]
