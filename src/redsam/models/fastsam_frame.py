"""The letterbox that YOLO sees an image through: aspect kept, grey bars on both sides, as little of them as fits.

As ultralytics' `LetterBox(auto=True)` and its `process_mask` (8.3): sides are multiples of 32, bars have value 114, and
the resize is OpenCV's plain bilinear, which does not smooth when it shrinks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from redsam.models.geometry import Frame

STRIDE = 32
GREY = 114 / 255
# Images of several shapes travel in one batch on a square; what lies beyond an image's own rectangle has this value,
# which no pixel has, and the network never sees it.
BEYOND = -1.0


@dataclass(frozen=True, kw_only=True)
class Letterbox(Frame):
    """Image, bars and what lies beyond on a square: the rectangle begins at the top left corner."""

    @property
    def content(self) -> tuple[int, int]:
        """(height, width) of the resized image."""
        gain = min(self.side / self.height, self.side / self.width)
        return max(round(self.height * gain), 1), max(round(self.width * gain), 1)

    @property
    def bars(self) -> tuple[int, int, int, int]:
        """Left, right, top, bottom, in pixels."""
        height, width = self.content
        high, wide = (self.side - height) % STRIDE / 2, (self.side - width) % STRIDE / 2
        return round(wide - 0.1), round(wide + 0.1), round(high - 0.1), round(high + 0.1)

    def fit(self, images: Tensor) -> Tensor:
        """Float Bx3xHxW in [0, 1] to Bx3xSxS, differentiable."""
        if tuple(images.shape[-2:]) != self.content:
            work = images if images.dtype == torch.float64 else images.float()
            images = F.interpolate(work, self.content, mode="bilinear", align_corners=False)
        return self._laid(images)

    def fit_exact(self, images: Tensor) -> Tensor:
        """uint8 Bx3xHxW to float32 Bx3xSxS with OpenCV's own 8-bit resize."""
        import cv2

        height, width = self.content
        if tuple(images.shape[-2:]) != self.content:
            rows = [image.permute(1, 2, 0).cpu().numpy() for image in images]
            small = [cv2.resize(np.ascontiguousarray(r), (width, height), interpolation=cv2.INTER_LINEAR) for r in rows]
            images = torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).to(images.device)
        return self._laid(images.to(torch.float32) / 255)

    def _laid(self, images: Tensor) -> Tensor:
        left, right, top, bottom = self.bars
        out = F.pad(images, (left, right, top, bottom), value=GREY)
        return F.pad(out, (0, self.side - out.shape[-1], 0, self.side - out.shape[-2]), value=BEYOND)

    def coordinates(self, xy: Tensor) -> Tensor:
        """...x2 (x, y) in original pixels to the square."""
        left, _, top, _ = self.bars
        return super().coordinates(xy) + xy.new_tensor([left, top])

    def logits(self, low_res: Tensor) -> Tensor:
        """NxMxSxS logits to NxMxHxW in original pixels."""
        left, _, top, _ = self.bars
        height, width = self.content
        out = low_res[..., top : top + height, left : left + width]
        if (height, width) == (self.height, self.width):
            return out
        return F.interpolate(out, (self.height, self.width), mode="bilinear", align_corners=False)
