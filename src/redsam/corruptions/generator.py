"""Generator: an image-to-image network that you bring, as a corruption: CycleGAN's weather, a diffusion pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from redsam.corruptions.base import Corruption
from redsam.corruptions.light import each
from redsam.corruptions.reference import STRENGTH
from redsam.corruptions.resnet_generator import ResnetGenerator, read_generator
from redsam.errors import InputError
from redsam.registry import register


@register("corruption", "generator", paper="Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial "
          "Networks (Zhu et al.)", year=2017, url="https://arxiv.org/abs/1703.10593", group="style",
          geometric=False, needs=("weights", "network"))  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class Generator(Corruption):
    """What a network makes of the image, mixed with the image by severity: 5 is the network's output alone.

    weights: safetensors of CycleGAN's residual generator (resnet_generator.py says which tensors); TorchScript and
    pickles are refused, as they run code. network: in Python any callable, 1x3xHxW in [0, 1] to the same shape; it
    gets no generator of ours, so determinism is its own affair. One of the two.

    Deviation: severities 1 to 4 mix in 20 to 80%; the paper's networks have no severity.
    """

    weights: str | None = None
    network: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights is not None and self.network is not None:
            raise InputError("Weights and a network were given.", hint="Give one of them.")

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        network = self.network
        if network is None:
            if self.weights is None:
                raise InputError(
                    "The corruption 'generator' runs a network of yours and got none.",
                    hint="Give weights=FILE.safetensors (CycleGAN's residual generator), in Python also network=.",
                )
            network = _read(*_version(self.weights)).to(images.device)
        strength = STRENGTH[self.severity - 1]

        def change(image: Tensor, _: torch.Generator) -> Tensor:
            made = network(image[None])
            if made.shape != (1, *image.shape):
                raise InputError(f"The network made {tuple(made.shape)} of 1x3x{image.shape[1]}x{image.shape[2]}.")
            return image + (made[0].to(image).clamp(0, 1) - image) * strength

        return each(images, generators, change)


def _version(path: str) -> tuple[str, int]:
    """The path and when it was written, so that a changed file is read again."""
    file = Path(path)
    return path, file.stat().st_mtime_ns if file.is_file() else 0


@lru_cache(maxsize=1)
def _read(path: str, _written: int) -> ResnetGenerator:
    return read_generator(path)
