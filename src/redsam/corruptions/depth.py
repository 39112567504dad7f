"""Depth of a single photograph, from priors: how far the ground is, and how near whatever is dark stands.

Not a measurement. Below the horizon the ground of a level world; above it whatever looks like sky is far and whatever
has a dark pixel nearby is not (the dark channel of He, Sun and Tang 2009). The border between both follows the image's
edges by a guided filter (He, Sun and Tang 2010).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from redsam.corruptions.light import blur, luminance, rows, short_side, smoothstep, to_linear, widest
from redsam.errors import InputError

Prior = Literal["both", "vertical", "dark-channel"]
# Of a car's camera: height above the ground in metres, focal length over the longer side (53 degrees across).
CAMERA, FOCAL = 1.4, 1.0
# Metres: what stands at the horizon, and the sky.
FAR, SKY = 60.0, 1000.0
# How softly the ground ends at the horizon, in heights of the image: nobody knows where exactly it is, and where it
# ends within a few rows, haze has a ledge there on every house in front.
SOFT = 0.06
# Side of the dark channel's window over the shorter side (the paper's 15 pixels on images of about 400).
WINDOW = 15 / 400
# How far from what was found the window and the filter can have hidden sky, over the shorter side, and how far sRGB
# values may be from those of the sky found nearby. Without it a rim of clear sky stands around every roof.
RIM, ALIKE = 0.06, 0.1


def check(prior: str, horizon: float) -> None:
    """Raise InputError for a prior that does not exist or a horizon outside the image."""
    if prior not in get_args(Prior):
        raise InputError(f"There is no depth prior '{prior}'.", hint=f"Choose from {', '.join(get_args(Prior))}.")
    if not 0 <= horizon <= 1:
        raise InputError(f"The horizon {horizon} is not in the image.", hint="0 is the top row, 1 the bottom row.")


def depth(image: Tensor, *, prior: Prior = "both", horizon: float = 0.45) -> Tensor:
    """HxW metres for sRGB 3xHxW. horizon: fraction of the height, 0 at the top.

    "vertical": the row alone. "dark-channel": sky-likeness alone. "both": the ground below the horizon, above it the
    dark channel's answer.
    """
    check(prior, horizon)
    below = ground(image, horizon)
    if prior == "vertical":  # from the horizon up more and more sky
        return below * (SKY / FAR) ** smoothstep(horizon - rows(image), 0.0, 0.3)
    haze = guided(image, dark_channel(to_linear(image), max(int(WINDOW * short_side(image)), 1)))
    skyward = regrown(image, smoothstep(haze, 0.15, 0.6))
    if prior == "dark-channel":
        return FAR * (SKY / FAR) ** skyward
    up = smoothstep(horizon - rows(image), 0.0, 0.1)  # no sky below the horizon, however bright
    return below * (SKY / FAR) ** (skyward * up)


def ground(image: Tensor, horizon: float) -> Tensor:
    """HxW metres to a level ground seen by a camera at CAMERA metres, focal * CAMERA / rows below the horizon, which
    something at FAR metres ends softly."""
    height, width = image.shape[-2:]
    down = F.softplus((rows(image).double() - horizon) / SOFT).to(image.dtype) * SOFT * height
    nearness = down / (FOCAL * max(height, width) * CAMERA) + 1 / FAR
    return (1 / nearness).expand(height, width)


def regrown(image: Tensor, sky: Tensor) -> Tensor:
    """HxW: sky-likeness given back to the rim that the dark channel's window took from it: what lies close to the sky
    found and has its colour."""
    side = short_side(image)
    sums = blur(torch.cat([image * sky, sky[None]]), RIM / 2 * side)
    away = (image - sums[:3] / sums[3].clamp_min(1e-4)).abs().amax(0)
    near = blur(widest(sky, round(RIM * side))[None], RIM / 6 * side)[0]
    return torch.maximum(sky, near * torch.exp(-((away / ALIKE).square())))


def dark_channel(light: Tensor, window: int) -> Tensor:
    """HxW: the smallest value of any colour within a square of about `window` pixels (He et al. 2009, eq. 5)."""
    return -widest(-light.amin(0), window // 2)


def guided(image: Tensor, values: Tensor) -> Tensor:
    """HxW values smoothed along the image's own edges: guided filter (He et al. 2010) with a Gaussian window."""
    guide = luminance(image)
    sigma, eps = 0.02 * short_side(image), 3e-4
    stats = blur(torch.stack([guide, values, guide * guide, guide * values]), sigma)
    slope = (stats[3] - stats[0] * stats[1]) / (stats[2] - stats[0] ** 2 + eps)
    lines = blur(torch.stack([slope, stats[1] - slope * stats[0]]), sigma)
    return (lines[0] * guide + lines[1]).clamp(0, 1)
