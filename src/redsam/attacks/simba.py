"""SimBA, a simple black-box attack: a step along one basis vector at a time, kept if it helps (Guo et al., 2019)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from redsam.attacks.loop import State
from redsam.attacks.query import QueryAttack
from redsam.attacks.task import Task
from redsam.errors import InputError
from redsam.registry import register

# Section 3.3: for ImageNet's 224 x 224 the lowest 28 x 28 frequencies, an eighth of each direction.
LOW_SHARE = 1 / 8


@register("attack", "simba", paper="Simple Black-box Adversarial Attacks (Guo et al.)", year=2019,
          url="https://arxiv.org/abs/1905.07121", norms=("linf", "l2"), kind="score", knowledge=("score",),
          cost="queries forwards")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class SimBA(QueryAttack):
    """Tries -step, then +step, along a random orthonormal vector, never one twice before all have been tried.

    basis "dct" (cosines over the whole image, the lowest `freq_dims` of each direction) or "pixel" (one value of one
    channel). step 0.2 and freq_dims 1/8 as published; n accepted steps have an l2 length of step * sqrt(n) where
    neither [0, 1] nor the threat cuts. 10,000 queries.
    Deviation: the authors' code counts 10,000 iterations of one or two queries each; +step is asked about only when
    -step did not help, as algorithm 1 and the code for single images have it; the objective stands in for the class
    probability; the published attack has no ball, here the sum of accepted steps is projected into the threat before
    every query (for linf as the authors' batch code clips it); when all directions are spent they are tried again.
    """

    basis: Literal["dct", "pixel"] = "dct"
    step: float = 0.2
    freq_dims: float = LOW_SHARE

    def proposer(self, task: Task) -> Coordinates:
        if self.basis not in ("dct", "pixel"):
            raise InputError(f"There is no basis '{self.basis}'.", hint="Choose from dct, pixel.")
        if not 0 < self.freq_dims <= 1:
            raise InputError(f"freq_dims is {self.freq_dims:g}.", hint="Give a share of each direction: 0.125")
        return Coordinates(basis=self.basis, step=self.step, share=self.freq_dims)


@dataclass(frozen=True, kw_only=True)
class Coordinates:
    """The proposer: memory["offset"] is the sum of accepted steps before projection."""

    basis: str
    step: float
    share: float

    def start(self, state: State) -> Tensor:
        height, width = state.clean.shape[-2:]
        size = (height, width) if self.basis == "pixel" else low(height, width, self.share)
        orders = []
        for i, generator in enumerate(state.generators):
            order = torch.randperm(3 * size[0] * size[1], generator=generator)
            if self.basis == "pixel" and state.region is not None:  # a value that may not move is no direction
                allowed = state.region[i].expand(3, -1, -1).flatten().cpu()
                order = order[allowed[order]] if bool(allowed.any()) else order
            orders.append(order.repeat(math.ceil(state.steps / len(order)))[: state.steps])
        state.memory |= {
            "order": torch.stack(orders).to(state.rows),
            "next": torch.zeros_like(state.rows),
            "sign": -torch.ones_like(state.rank),
            "offset": torch.zeros_like(state.clean),
        }
        return state.clean

    def propose(self, state: State) -> Tensor:
        m = state.memory
        index = m["order"].gather(1, m["next"][:, None])[:, 0]
        vectors = basis_vectors(self.basis, index, state.clean, self.share)
        m["tried"] = m["offset"] + (m["sign"] * self.step)[:, None, None, None].to(vectors) * vectors
        return state.clean + m["tried"]

    def learn(self, state: State, better: Tensor) -> None:
        m = state.memory
        m["offset"] = torch.where(better[:, None, None, None], m["tried"], m["offset"])
        done = better | (m["sign"] > 0)
        m["next"] = m["next"] + done
        m["sign"] = torch.where(done, -1.0, 1.0)


def low(height: int, width: int, share: float) -> tuple[int, int]:
    """How many of the lowest frequencies of each direction are used, at least one."""
    return max(round(share * height), 1), max(round(share * width), 1)


def basis_vectors(basis: str, index: Tensor, like: Tensor, share: float = 1.0) -> Tensor:
    """n basis images of unit l2 length, nx3xHxW as `like`; index counts (channel, row, column) or (channel, vertical,
    horizontal frequency) among the `low` ones."""
    height, width = like.shape[-2:]
    if basis == "pixel":
        return torch.zeros_like(like).flatten(1).scatter_(1, index[:, None], 1.0).view_as(like)
    rows, columns = low(height, width, share)
    channel, rest = index // (rows * columns), index % (rows * columns)
    down, along = _cosines(rest // columns, height, like), _cosines(rest % columns, width, like)
    plane = down[:, :, None] * along[:, None, :]
    chosen = torch.nn.functional.one_hot(channel, 3).to(like)
    return chosen[:, :, None, None] * plane[:, None]


def _cosines(frequency: Tensor, size: int, like: Tensor) -> Tensor:
    """Rows of the orthonormal DCT-II matrix of `size`: nxsize."""
    at = torch.arange(size, device=like.device, dtype=torch.float64) + 0.5
    waves = torch.cos(math.pi / size * frequency[:, None] * at)
    scale = torch.where(frequency == 0, math.sqrt(1 / size), math.sqrt(2 / size))
    return (waves * scale[:, None]).to(like.dtype)
