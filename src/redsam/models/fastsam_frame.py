"""The letterbox that YOLO sees an image through, and the way back for its boxes and masks.

Aspect kept, grey bars on both sides, as little of them as fits. As ultralytics' `LetterBox(auto=True)`, `scale_boxes`
and `process_mask_native` (8.4.190): sides are multiples of 32, bars have value 114, and the resize is OpenCV's plain
bilinear, which does not smooth when it shrinks. Prompts and masks are in original pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from redsam.models.geometry import Frame

STRIDE = 32
GREY = 114 / 255
# Pixels a prototype's cell is wide.
CELL = 4
# Images of several shapes travel in one batch on a square; what lies beyond an image's own rectangle has this value,
# which no pixel has, and the network never sees it.
BEYOND = -1.0


@dataclass(frozen=True, kw_only=True)
class Letterbox(Frame):
    """Image, bars and what lies beyond on a square: the rectangle begins at the top left corner."""

    @property
    def content(self) -> tuple[int, int]:
        """(height, width) of the resized image."""
        return _scaled(self, min(self.side / self.height, self.side / self.width))

    @property
    def bars(self) -> tuple[int, int, int, int]:
        """Left, right, top, bottom, in pixels."""
        height, width = self.content
        high, wide = (self.side - height) % STRIDE / 2, (self.side - width) % STRIDE / 2
        return round(wide - 0.1), round(wide + 0.1), round(high - 0.1), round(high + 0.1)

    # --- images in -------------------------------------------------------------------------------------------------
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
        """Unchanged: a prompt chooses among masks in original pixels."""
        return xy

    # --- boxes and masks out ---------------------------------------------------------------------------------------
    def boxes(self, corners: Tensor) -> Tensor:
        """Nx4 boxes on the square to original pixels, inside the image."""
        top, left, height, width = self._within(*self._rectangle)
        shift = corners.new_tensor([left, top] * 2)
        scale = corners.new_tensor([width / self.width, height / self.height] * 2)
        limits = corners.new_tensor([self.width, self.height] * 2)
        return torch.minimum(((corners - shift) / scale).clamp(min=0), limits)

    def masks(self, cells: Tensor) -> Tensor:
        """Nxhxw logits of the square's cells to NxHxW in original pixels: enlarged as far as the bars need it to end
        between two of its pixels, freed of them, and resized."""
        high, wide = self._rectangle
        own = cells[:, None, : high // CELL, : wide // CELL]
        _, _, height, width = self._within(high, wide)
        bars = (high - height) | (wide - width)
        times = CELL // math.gcd(CELL, bars | bars // 2)
        if times > 1:
            own = F.interpolate(own, scale_factor=times, mode="bilinear", align_corners=False)
        top, left, height, width = self._within(int(own.shape[-2]), int(own.shape[-1]))
        own = own[..., top : top + height, left : left + width]
        if (height, width) != (self.height, self.width):
            own = F.interpolate(own, (self.height, self.width), mode="bilinear", align_corners=False)
        return own[:, 0]

    def logits(self, low_res: Tensor) -> Tensor:
        """NxMxCxC logits to NxMxHxW: they are in original pixels, with room to spare at the bottom and on the right."""
        return low_res[..., : self.height, : self.width]

    @property
    def _rectangle(self) -> tuple[int, int]:
        """(height, width) of the image and its bars."""
        (height, width), (left, right, top, bottom) = self.content, self.bars
        return top + height + bottom, left + width + right

    def _within(self, high: int, wide: int) -> tuple[int, int, int, int]:
        """Top, left, height and width of the image in its rectangle drawn this high and wide; told, as ultralytics
        does, from the sizes alone."""
        height, width = _scaled(self, min(high / self.height, wide / self.width))
        return round((high - height) / 2 - 0.1), round((wide - width) / 2 - 0.1), height, width


def _scaled(frame: Frame, gain: float) -> tuple[int, int]:
    """(height, width) of the frame's image times `gain`, at least a pixel."""
    return max(round(frame.height * gain), 1), max(round(frame.width * gain), 1)
