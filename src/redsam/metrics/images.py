"""How visible a change of the image is: PSNR and SSIM between float32 ...x3xHxW images in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from redsam.registry import register

WINDOW, SIGMA = 11, 1.5  # Wang et al. 2004, section III.C: "11 x 11 circular-symmetric Gaussian, sigma 1.5 samples"
K1, K2 = 0.01, 0.03  # ibid.


@register("metric", "psnr", higher_is_better=True, range=(0.0, float("inf")), unit="dB")
def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, peak 1, over the last three dimensions; float64, infinite for equal images."""
    _check(a, b)
    error = (a.to(torch.float64) - b.to(torch.float64)).square().flatten(-3).mean(-1)
    return -10 * torch.log10(error)


@register("metric", "ssim", higher_is_better=True, range=(-1.0, 1.0), year=2004)
def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Mean structural similarity of ...x3xHxW images with peak 1; float64 of the leading shape, 1 for equal images.

    Gaussian window 11x11 with sigma 1.5, K1 = 0.01, K2 = 0.03, on each colour channel, averaged over the positions where
    the window lies fully inside (Wang, Bovik, Sheikh, Simoncelli 2004, eq. 13, and the authors' `valid` filtering).
    Deviation: for an image smaller than the window, the window shrinks to the largest odd size that fits.
    """
    _check(a, b)
    lead, (channels, height, width) = a.shape[:-3], a.shape[-3:]
    # float64: SSIM subtracts nearly equal moments, and an 8-bit step's variance is close to float32's rounding
    x, y = (t.to(torch.float64).reshape(-1, 1, height, width) for t in (a, b))
    size = min(WINDOW, height - 1 + height % 2, width - 1 + width % 2)
    offset = torch.arange(size, dtype=torch.float64, device=x.device) - size // 2
    window = torch.exp(-0.5 * (offset / SIGMA) ** 2)
    window = window / window.sum()

    def smooth(t: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(t, window.view(1, 1, 1, -1)), window.view(1, 1, -1, 1))

    c1, c2 = K1**2, K2**2
    mean_x, mean_y, xx, yy, xy = smooth(torch.cat([x, y, x * x, y * y, x * y])).chunk(5)
    covariance = xy - mean_x * mean_y
    variance = (xx - mean_x**2) + (yy - mean_y**2)
    value = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    value = value / ((mean_x**2 + mean_y**2 + c1) * (variance + c2))
    return value.flatten(1).mean(1).reshape(*lead, channels).mean(-1)


def _check(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or a.ndim < 3 or not (a.is_floating_point() and b.is_floating_point()):
        raise ValueError(
            f"expected two float ...x3xHxW images of one shape, got {a.dtype} {tuple(a.shape)}, "
            f"{b.dtype} {tuple(b.shape)}"
        )
