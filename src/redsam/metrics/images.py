"""How visible a change of the image is: PSNR and SSIM between float32 ...x3xHxW images in [0, 1]."""

from __future__ import annotations

import math

import torch
from torch import Tensor

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

    Gaussian window 11x11 with sigma 1.5, K1 = 0.01, K2 = 0.03, on each colour channel, averaged over the positions
    where the window lies fully inside (Wang, Bovik, Sheikh, Simoncelli 2004, eq. 13, and the authors' own filtering).
    Deviation: for an image smaller than the window, the window shrinks to the largest odd length that fits.
    """
    _check(a, b)
    lead, (channels, height, width) = a.shape[:-3], a.shape[-3:]
    x, y = (t.to(torch.float32).reshape(-1, height, width) for t in (a, b))
    # Eq. 13 written with d = x - y, 2 cov = var x + var y - var d: equal images then give exactly 1, and float32 is
    # good to 1e-5 at a third of float64's time. Grey moved to 0 changes no variance and keeps the moments small.
    d, u, v = x - y, x - 0.5, y - 0.5
    mean_u, mean_d, square_uv, square_d = _smooth(torch.stack([u, d, u * u + v * v, d * d]))
    mean_v = mean_u - mean_d
    variance = (square_uv - mean_u**2 - mean_v**2).clamp_min(0)
    luminance = 1 - mean_d**2 / ((mean_u + 0.5) ** 2 + (mean_v + 0.5) ** 2 + K1**2)
    structure = 1 - (square_d - mean_d**2).clamp_min(0) / (variance + K2**2)
    each: Tensor = (luminance * structure).to(torch.float64).mean((-2, -1))
    return each.reshape(*lead, channels).mean(-1)


def _smooth(t: Tensor) -> Tensor:
    """Gaussian-weighted mean around every position where the window fits, over the last two dimensions."""
    for dim in (-1, -2):
        length = t.shape[dim]
        size = min(WINDOW, length - 1 + length % 2)
        weights = [math.exp(-0.5 * ((k - size // 2) / SIGMA) ** 2) for k in range(size)]
        room = length - size + 1
        # Sums of shifted copies: a convolution of one channel by a vector is several times slower on a CPU.
        out = t.narrow(dim, 0, room) * (weights[0] / sum(weights))
        for k in range(1, size):
            out.add_(t.narrow(dim, k, room), alpha=weights[k] / sum(weights))
        t = out
    return t


def _check(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or a.ndim < 3 or not (a.is_floating_point() and b.is_floating_point()):
        raise ValueError(
            f"expected two float ...x3xHxW images of one shape, got {a.dtype} {tuple(a.shape)}, "
            f"{b.dtype} {tuple(b.shape)}"
        )
