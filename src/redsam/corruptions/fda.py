"""FDA: the low frequencies' amplitudes of a reference photograph, with the image's own phases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redsam.corruptions.base import Corruption
from redsam.corruptions.light import each
from redsam.corruptions.reference import reference_for
from redsam.models.resample import resize
from redsam.registry import register

# By severity; the paper trains with 0.01, 0.05 and 0.09.
BETA = (0.001, 0.004, 0.01, 0.03, 0.09)


@register("corruption", "fda", paper="FDA: Fourier Domain Adaptation for Semantic Segmentation (Yang, Soatto)",
          year=2020, url="https://arxiv.org/abs/2004.05498", group="style", geometric=False)  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class FDA(Corruption):
    """Amplitudes of all frequencies within beta of the image's height and width become those of the reference, which is
    resized to the image (eq. 1 to 3); severity chooses beta. reference: path of a photograph, None: a bundled one,
    never the image itself.

    Deviation: the band is open, |f| < beta H, so that beta 0 leaves the image as the paper says; its code keeps the
    mean's amplitude in the band even then, and takes a square of beta times the shorter side.
    The band is never narrower than |f| < severity, so that small images have five severities too.
    """

    reference: str | None = None

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return each(images, generators, self._one)

    def _one(self, image: Tensor, generator: torch.Generator) -> Tensor:
        size = (int(image.shape[-2]), int(image.shape[-1]))
        style = resize(reference_for(image, self.reference)[None], size)[0]
        return swap(image, style, BETA[self.severity - 1], least=self.severity).to(image.dtype)


def swap(image: Tensor, style: Tensor, beta: float, *, least: int = 0) -> Tensor:
    """3xHxW with the low-frequency amplitudes of another 3xHxW; float64, may lie outside [0, 1]."""
    source, target = torch.fft.fft2(image.to(torch.float64)), torch.fft.fft2(style.to(torch.float64))
    # A frequency of amplitude 0 has no phase; as it stands it gets phase 0.
    turned = torch.polar(target.abs(), source.angle())
    inside = band((int(image.shape[-2]), int(image.shape[-1])), beta, least=least).to(image.device)
    mixed = torch.where(inside, turned, source)
    found: Tensor = torch.fft.ifft2(mixed).real
    return found


def band(size: tuple[int, int], beta: float, *, least: int = 0) -> Tensor:
    """Bool HxW in the order of `fft2`: frequencies below beta times the height and the width, in cycles per image, or
    below `least` cycles where that is more."""
    height, width = size
    down, across = torch.fft.fftfreq(height).abs(), torch.fft.fftfreq(width).abs()
    found: Tensor = (down < max(beta, least / height))[:, None] & (across < max(beta, least / width))[None]
    return found
