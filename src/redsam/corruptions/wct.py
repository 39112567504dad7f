"""WCT and AdaIN: features of the image are given the reference's covariance, or each its mean and deviation.

Both need features with a way back. A decoder is a trained network, and none ships (the lab models' encoders have no
inverse), so by default the features are small overlapping patches in an orthonormal basis (cosines, opponent colours),
whose inverse is its transpose: second-order style without training. Bring an encoder and a decoder for the real thing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from redsam.corruptions.base import Corruption
from redsam.corruptions.light import each
from redsam.corruptions.reference import STRENGTH, match_moments, reference_for
from redsam.errors import InputError
from redsam.models.resample import resize
from redsam.registry import register

Network = Callable[[Tensor], Tensor]
PATCH = 8  # pixels; patches overlap by half
# Smallest eigenvalue that is whitened: the variance of rounding to 8 bits, 1 / (12 * 255^2). Less is noise.
FLOOR = 1.3e-6


@dataclass(frozen=True, kw_only=True)
class FeatureStyle(Corruption):
    """reference: path of a photograph, None: a bundled one, never the image itself. encoder: 1x3xHxW in [0, 1] to
    1xCxhxw features; decoder: back to 1x3xHxW; both or neither, the latter for patches."""

    reference: str | None = None
    encoder: Network | None = None
    decoder: Network | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.encoder is None) != (self.decoder is None):
            raise InputError("An encoder and a decoder go together.", hint="Give both, or neither for patches.")

    def transfer(self, features: Tensor, style: Tensor) -> Tensor:
        """CxN features and CxM of the reference to CxN, float64."""
        raise TypeError(f"{type(self).__name__} does not say how features are changed.")

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return each(images, generators, self._one)

    def _one(self, image: Tensor, generator: torch.Generator) -> Tensor:
        style, strength = reference_for(image, self.reference), STRENGTH[self.severity - 1]
        size = (int(image.shape[-2]), int(image.shape[-1]))
        if self.encoder is None or self.decoder is None:
            features = patches(image)
            found = self.transfer(features, patches(style))
            return unpatch(features + (found - features) * strength, size).to(image.dtype)
        features, wanted = self.encoder(image[None]), self.encoder(style[None])
        if features.ndim != 4 or wanted.ndim != 4 or len(features) != 1 or features.shape[1] != wanted.shape[1]:
            raise InputError(f"The encoder made {tuple(features.shape)} of one image, expected 1xCxhxw.")
        flat = features[0].flatten(1)
        found = flat + (self.transfer(flat, wanted[0].flatten(1)) - flat) * strength
        out = self.decoder(found.reshape(features.shape).to(features.dtype))
        if out.ndim != 4 or out.shape[:2] != (1, 3):
            raise InputError(f"The decoder made {tuple(out.shape)}, expected 1x3xHxW.")
        return resize(out.float(), size)[0]


@register("corruption", "wct", paper="Universal Style Transfer via Feature Transforms (Li et al.)", year=2017,
          url="https://arxiv.org/abs/1705.08086", group="style", geometric=False)  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class WCT(FeatureStyle):
    """Whitening and colouring: features with the covariance and mean of the reference's (eq. 2 and 3); severity is how
    much of the result is mixed in (eq. 4), 5 all.

    Deviation: by default features are patches, not VGG's layers; a network of your own gets one level, not five.
    """

    def transfer(self, features: Tensor, style: Tensor) -> Tensor:
        return whiten_colour(features, style)


@register("corruption", "adain", paper="Arbitrary Style Transfer in Real-Time with Adaptive Instance Normalization "
          "(Huang, Belongie)", year=2017, url="https://arxiv.org/abs/1703.06868", group="style",
          geometric=False)  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class AdaIN(FeatureStyle):
    """Each feature gets the reference's mean and deviation (eq. 8); severity is how much is mixed in (eq. 14), 5 all.

    Deviation: by default features are cosines of patches, not VGG's relu4_1.
    """

    def transfer(self, features: Tensor, style: Tensor) -> Tensor:
        return match_moments(features, style)


def whiten_colour(features: Tensor, style: Tensor) -> Tensor:
    """CxN with the mean and covariance of CxM, by the symmetric square roots; float64."""
    x, y = features.to(torch.float64), style.to(torch.float64)
    mean, goal = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
    change = _power(_covariance(y - goal), 0.5, 0.0) @ _power(_covariance(x - mean), -0.5, FLOOR)
    return change @ (x - mean) + goal


def _covariance(centred: Tensor) -> Tensor:
    found: Tensor = centred @ centred.T / centred.shape[1]
    return found


def _power(matrix: Tensor, exponent: float, floor: float) -> Tensor:
    """A symmetric matrix to a power, eigenvalues not below the floor."""
    values, vectors = torch.linalg.eigh(matrix)
    found: Tensor = (vectors * values.clamp_min(floor).pow(exponent)) @ vectors.T
    return found


def patches(image: Tensor) -> Tensor:
    """3xHxW to (3 PATCH^2)xN in the basis, float64; patches overlap by half, the border is continued for them."""
    height, width = image.shape[-2:]
    half = PATCH // 2
    around = (half, half + -width % half, half, half + -height % half)
    wide = F.pad(image[None].to(torch.float64), around, mode="replicate")
    return basis().to(image.device) @ F.unfold(wide, PATCH, stride=half)[0]


def unpatch(features: Tensor, size: tuple[int, int]) -> Tensor:
    """The 3xHxW whose patches are nearest to these: the mean where they overlap. Inverse of `patches`."""
    height, width = size
    half = PATCH // 2
    whole = (height + 2 * half + -height % half, width + 2 * half + -width % half)
    flat = basis().to(features.device).T @ features
    total = F.fold(flat[None], whole, PATCH, stride=half)
    count = F.fold(torch.ones_like(flat)[None], whole, PATCH, stride=half)
    return (total / count)[0, :, half : half + height, half : half + width]


@lru_cache(maxsize=1)
def basis() -> Tensor:
    """Orthonormal (3 PATCH^2)^2 matrix: opponent colours times cosines down times cosines across; float64."""
    k, x = torch.arange(PATCH, dtype=torch.float64)[:, None], torch.arange(PATCH, dtype=torch.float64)[None]
    cosines = math.sqrt(2 / PATCH) * torch.cos(math.pi * k * (2 * x + 1) / (2 * PATCH))
    cosines[0] /= math.sqrt(2)
    colours = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, -2.0], [1.0, -1.0, 0.0]], dtype=torch.float64)
    colours = colours / colours.norm(dim=1, keepdim=True)
    return torch.kron(colours, torch.kron(cosines, cosines))
