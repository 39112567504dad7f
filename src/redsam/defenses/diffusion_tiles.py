"""A diffusion model of small pictures on pictures of any size: overlapping tiles, their predictions blended.

At every timestep the noise is predicted on each tile and averaged where tiles overlap, weighted by the distance to the
tile's border (Bar-Tal et al., "MultiDiffusion", ICML 2023, eq. 5, with weights). The picture as a whole takes the step,
so there are no seams, and a pixel's noise belongs to the picture and not to a tile.

Memory: tiles pass the network a few at a time. In a backward pass each few are computed again from what went in, so
what is kept of a step is the picture and not the network's activations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from redsam.corruptions.filters import indices
from redsam.defenses.diffusion import Predict

OVERLAP = 6  # a sixth of a tile, or less than a tile more where the picture does not divide
TOGETHER = 2**15  # pixels that pass the network at once: about 0.3 GB in a backward pass of the bundled model

Network = Callable[[Tensor, int], Tensor]


def canvas(height: int, width: int, *, tile: int, multiple: int = 1) -> tuple[int, int]:
    """What a picture is enlarged to: at least a tile, sides divisible by `multiple`."""
    high, wide = (max(math.ceil(n / multiple) * multiple, math.ceil(tile / multiple) * multiple)
                  for n in (height, width))  # fmt: skip
    return high, wide


def enlarge(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Mirrored pixels below and to the right, as many as are wanted."""
    for axis, wanted in zip((-2, -1), size, strict=True):
        have = images.shape[axis]
        if wanted > have:
            at = indices(have, wanted - have, "reflect")[wanted - have :][:wanted]
            images = images.index_select(axis, at.to(images.device))
    return images


def starts(length: int, tile: int) -> list[int]:
    """Where tiles begin on a side: evenly spread, the last one ends with the picture."""
    free = length - tile
    count = math.ceil(free / (tile - tile // OVERLAP)) + 1
    return [round(i * free / max(count - 1, 1)) for i in range(count)]


def tiled(network: Network, size: tuple[int, int], *, tile: int) -> Predict:
    """`network`, which takes Bx3xtilextile, as one that takes 1x3xHxW of the size."""
    every = torch.arange(size[0] * size[1]).view(size)
    corners = [(top, left) for top in starts(size[0], tile) for left in starts(size[1], tile)]
    places = torch.stack([every[top : top + tile, left : left + tile].flatten() for top, left in corners])
    ramp = torch.minimum(torch.arange(1, tile + 1), torch.arange(tile, 0, -1)).clamp(max=max(tile // OVERLAP, 1))
    weight = (ramp[:, None] * ramp).double().flatten()
    total = torch.zeros(size[0] * size[1], dtype=torch.float64)
    total.index_add_(0, places.flatten(), weight.repeat(len(places)))
    shares = weight / total[places]
    few = max(TOGETHER // tile**2, 1)

    def predict(x: Tensor, t: int) -> Tensor:
        flat, out = x.flatten(2)[0], torch.zeros_like(x[0]).flatten(1)
        for first in range(0, len(places), few):
            at = places[first : first + few].to(x.device)
            cut = flat.index_select(1, at.flatten()).view(3, len(at), tile, tile).transpose(0, 1)
            made = _checkpointed(network, cut.contiguous(), t).transpose(0, 1).reshape(3, len(at), -1)
            out = out.index_add(1, at.flatten(), (made * shares[first : first + few].to(x)).flatten(1))
        return out.view_as(x)

    return predict


def _checkpointed(network: Network, x: Tensor, t: int) -> Tensor:
    if torch.is_grad_enabled() and x.requires_grad:
        return cast(Tensor, checkpoint(network, x, t, use_reentrant=False, preserve_rng_state=False))
    return network(x, t)
