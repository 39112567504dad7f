"""What purifiers with a diffusion model share: which model, how large pictures are brought before it, gradients.

Each picture is purified by itself, so it gives the same bytes alone or in a batch. Gradients are those of the whole
chain: the network is computed again in the backward pass, noise is drawn outside of it and so is the same.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redsam.corruptions.base import normal
from redsam.defenses import diffusion_models as models
from redsam.defenses.base import Purifier, within
from redsam.defenses.diffusion import Draw, Predict, Schedule
from redsam.defenses.diffusion_tiles import canvas, enlarge, tiled
from redsam.errors import InputError
from redsam.models.resample import resize

TILES, RESIDUAL = "tiles", "residual"


@dataclass(frozen=True, kw_only=True)
class DiffusionPurifier(Purifier):
    """model: lab-ddpm, a folder of a diffusers DDPMPipeline or a hub id (needs the extra `diffusion`). large: how a
    picture larger than the model's is brought before it: "tiles", all of its pixels in overlapping tiles; "residual",
    made smaller first, and what purification changed there is added to the picture (cheaper; what only shows at full
    size stays). side: longest side of the smaller picture, 0 for the model's own. tile: side of a tile, 0 for the
    model's own."""

    model: str = models.BUNDLED
    large: str = TILES
    side: int = 192
    tile: int = 0

    def __post_init__(self) -> None:
        if self.large not in (TILES, RESIDUAL):
            raise InputError(f"Large pictures by '{self.large}'?", hint=f"Give large={TILES} or large={RESIDUAL}.")
        within("Side of the smaller picture", self.side, 0, 4096, whole=True)
        within("Side of a tile", self.tile, 0, 4096, whole=True)
        models.check(self.model)

    @property
    def learned(self) -> str:
        """Of the diffusion model's weights."""
        return models.denoiser(self.model).fingerprint

    @property
    def multiple(self) -> int:
        """What the sides of a picture must be divisible by; it is enlarged to that and cut back."""
        return 1

    @abstractmethod
    def diffuse(self, x: Tensor, schedule: Schedule, predict: Predict, draw: Draw) -> Tensor:
        """The purified picture: 1x3xHxW about [-1, 1] to the same, with gradients. draw: fresh noise of that shape."""

    def purify(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return torch.cat([self._one(image[None], g) for image, g in zip(images, generators, strict=True)])

    def _one(self, image: Tensor, random: torch.Generator) -> Tensor:
        found = models.denoiser(self.model)
        height, width = image.shape[-2:]
        longest = self.side or found.side
        if self.large == TILES or max(height, width) <= longest:
            return self._whole(image, random, found)
        factor = longest / max(height, width)
        small = resize(image, (max(round(height * factor), 1), max(round(width * factor), 1)))
        return image + resize(self._whole(small, random, found) - small, (height, width))

    def _whole(self, image: Tensor, random: torch.Generator, found: models.Denoiser) -> Tensor:
        tile = self.tile or -(-found.side // found.stride) * found.stride
        if tile % found.stride:
            raise InputError(f"'{self.model}' takes no tiles of {tile}.", hint=f"Give a multiple of {found.stride}.")
        height, width = image.shape[-2:]
        size = canvas(height, width, tile=tile, multiple=self.multiple)
        network = models.placed(self.model, image.device, image.dtype)
        predict = tiled(lambda x, t: found.noise(network, x, t), size, tile=tile)

        def draw() -> Tensor:
            return normal([random], (3, *size), image).to(image.dtype)

        purified = self.diffuse(enlarge(2 * image - 1, size), found.schedule, predict, draw)
        return (purified[..., :height, :width] + 1) / 2
