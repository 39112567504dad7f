"""Blurs of BxCxHxW images: convolution in float64, kernels, and borders by name.

Convolved through Fourier space, image by image: a large kernel costs no more than a small one, and what an image
becomes does not depend on the rest of its batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from scipy.fft import next_fast_len
from torch import Tensor

# What lies beyond the border pixels a b c: "mirror" c b | a b c, "reflect" b a | a b c, "nearest" a a | a b c.
Border = Literal["mirror", "reflect", "nearest"]


def convolve(images: Tensor, kernels: Tensor | Sequence[Tensor], border: Border) -> Tensor:
    """Each pixel becomes the sum of its neighbours times the kernel laid over them (its middle on the pixel).

    kernels: one for all images, or one for each; float64 with odd sides. Returns float32 on the images' device.
    """
    each = [kernels] * len(images) if isinstance(kernels, Tensor) else kernels
    return torch.stack([_convolve(image, kernel, border) for image, kernel in zip(images, each, strict=True)])


def _convolve(image: Tensor, kernel: Tensor, border: Border) -> Tensor:
    (height, width), (down, across) = image.shape[-2:], (kernel.shape[0] // 2, kernel.shape[1] // 2)
    rows, columns = (indices(n, k, border).to(image.device) for n, k in ((height, down), (width, across)))
    wide = image.double().index_select(-2, rows).index_select(-1, columns)
    size = [next_fast_len(n, real=True) for n in wide.shape[-2:]]
    kernel = kernel.flip(0, 1).to(image.device, torch.float64)
    product = torch.fft.rfft2(wide, s=size) * torch.fft.rfft2(kernel, s=size)
    out: Tensor = torch.fft.irfft2(product, s=size)
    return out[..., 2 * down : 2 * down + height, 2 * across : 2 * across + width].to(torch.float32)


def indices(size: int, beyond: int, border: Border) -> Tensor:
    """Which of `size` pixels stands at -beyond ... size + beyond - 1."""
    at = torch.arange(-beyond, size + beyond)
    if border == "nearest":
        return at.clamp(0, size - 1)
    if border == "reflect":
        at = at.remainder(2 * size)
        return torch.minimum(at, 2 * size - 1 - at)
    period = max(2 * (size - 1), 1)
    at = at.remainder(period)
    return torch.minimum(at, period - at)


def bell(sigma: float, *, truncate: float = 4.0) -> Tensor:
    """Gaussian weights that sum to 1, cut at `truncate` standard deviations; float64, one-dimensional, odd."""
    reach = int(truncate * sigma + 0.5)
    at = torch.arange(-reach, reach + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (at / max(sigma, 1e-6)) ** 2)
    return weights / weights.sum()


def smooth(images: Tensor, sigma: float, border: Border, *, truncate: float = 4.0) -> Tensor:
    """Gaussian blur, float32."""
    weights = bell(sigma, truncate=truncate)
    return convolve(images, torch.outer(weights, weights), border)


def streak(radius: float, sigma: float, degrees: float) -> Tensor:
    """Kernel of a movement that fades: 2 radius + 1 taps in one direction, weighted by half a Gaussian, each on the
    nearest pixel; ImageMagick's motion blur. 0 degrees trails to the right, 90 downwards."""
    count = 2 * round(radius) + 1
    weights = [math.exp(-0.5 * (i / max(sigma, 1e-6)) ** 2) for i in range(count)]
    reach = count - 1
    kernel = torch.zeros(2 * reach + 1, 2 * reach + 1, dtype=torch.float64)
    angle = math.radians(degrees)
    for i, weight in enumerate(weights):
        row, column = math.ceil(i * math.sin(angle) - 0.5), math.ceil(i * math.cos(angle) - 0.5)
        kernel[reach + row, reach + column] += weight / sum(weights)
    return _trimmed(kernel)


def _trimmed(kernel: Tensor) -> Tensor:
    """Without the outer rings that hold (all but) nothing."""
    middle = kernel.shape[0] // 2
    held = (kernel > 1e-12).nonzero()
    reach = int((held - middle).abs().max())
    return kernel[middle - reach : middle + reach + 1, middle - reach : middle + reach + 1]
