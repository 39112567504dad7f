"""Square attack: random search with squares that shrink (Andriushchenko et al., 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redsam.attacks.loop import State
from redsam.attacks.query import QueryAttack
from redsam.attacks.task import Task
from redsam.errors import InputError
from redsam.registry import register

# Share of pixels in the first square: 0.8 in the linf version that AutoAttack carries (the paper's ImageNet runs used
# 0.05), 0.1 in l2.
FIRST = {"linf": 0.8, "l2": 0.1}
# Section 4.1: of 10,000 iterations, p is halved after these.
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
SCHEDULE = 10_000
TILES = 5  # l2: the start is a grid of 5 x 5 tiles


@register("attack", "square", paper="Square Attack: a query-efficient black-box attack (Andriushchenko et al.)",
          year=2020, url="https://arxiv.org/abs/1912.00049", norms=("linf", "l2"), kind="score",
          knowledge=("score",), cost="queries forwards")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class Square(QueryAttack):
    """linf: a random square is set to +-eps in every channel; l2: the change of one window is moved into another, in a
    centred pattern. Starts from vertical stripes (linf) or tiles (l2), which are the first query.

    p_init None is the published share of the first square, 0.8 in linf and 0.1 in l2; the schedule of halvings is
    stretched to `queries`. 10,000 queries.
    Deviation: on an image that is not square, tiles and windows stay square, as many tiles as fit; windows may touch
    every edge (algorithm 2; the authors' code never reaches the last row); in l2 what a window may spend counts its own
    channel only, as in algorithm 3 and the authors' first code.
    """

    p_init: float | None = None

    def proposer(self, task: Task) -> Squares:
        share = FIRST[task.threat.norm] if self.p_init is None else self.p_init
        if not 0 < share <= 1:
            raise InputError(f"p_init is {share:g}.", hint="Give the share of pixels in the first square: 0.8")
        return Squares(share=share)


@dataclass(frozen=True, kw_only=True)
class Squares:
    """The proposer, for the norm of the state's threat."""

    share: float

    def start(self, state: State) -> Tensor:
        channels, height, width = state.clean.shape[1:]
        if state.threat.norm == "linf":
            shape = (channels, 1, width)
            stripes = [signs(shape, g).expand(-1, height, -1) for g in state.generators]
            return state.clean + state.threat.eps * torch.stack(stripes).to(state.clean)
        tiles = torch.stack([_tiles(channels, height, width, g) for g in state.generators]).to(state.clean)
        return state.clean + state.threat.eps * _unit(tiles, (1, 2, 3))

    def propose(self, state: State) -> Tensor:
        share = self.share / 2 ** halvings(state.step - 1, state.steps - 1)
        move = self._square if state.threat.norm == "linf" else self._window
        return torch.stack([move(state, i, g, share) for i, g in enumerate(state.generators)])

    def learn(self, state: State, better: Tensor) -> None:
        """Random search learns nothing but the best image."""

    def _square(self, state: State, i: int, generator: torch.Generator, share: float) -> Tensor:
        """Algorithm 2: +-2 eps, which the projection cuts to +-eps."""
        channels, height, width = state.clean.shape[1:]
        side = min(max(round(math.sqrt(share * height * width)), 1), height, width)
        top, left = place(height - side, generator), place(width - side, generator)
        out = state.x[i].clone()
        out[:, top : top + side, left : left + side] += (
            2 * state.threat.eps * signs((channels, 1, 1), generator).to(out)
        )
        return out

    def _window(self, state: State, i: int, generator: torch.Generator, share: float) -> Tensor:
        """Algorithm 3: the second window gives what it had to the first, beside what is left of eps."""
        channels, height, width = state.clean.shape[1:]
        eps, change = state.threat.eps, state.x[i] - state.clean[i]
        side = max(round(math.sqrt(share * height * width)), 3)
        side = min(side + 1 - side % 2, height, width)  # odd
        corners = [(place(height - side, generator), place(width - side, generator)) for _ in range(2)]
        (first, second) = ((..., slice(t, t + side), slice(left, left + side)) for t, left in corners)
        both = torch.zeros_like(change)
        both[first], both[second] = 1.0, 1.0
        unused = (eps**2 - change.square().sum()).clamp_min(0) / channels
        available = ((change * both).square().sum((1, 2), keepdim=True) + unused).sqrt()
        pattern = hill(side, generator).to(change) * signs((channels, 1, 1), generator).to(change)
        fresh = _unit(pattern + _unit(change[first], (1, 2)), (1, 2)) * available
        change[second] = 0.0
        change[first] = fresh
        return state.clean[i] + eps * _unit(change, (0, 1, 2))


# --- draws, one image at a time, on the CPU -------------------------------------------------------------------------
def signs(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """+1 or -1 each."""
    return torch.randint(0, 2, tuple(shape), generator=generator) * 2.0 - 1.0


def place(room: int, generator: torch.Generator) -> int:
    """0 to room, both possible."""
    return int(torch.randint(0, room + 1, (1,), generator=generator))


def turned(generator: torch.Generator) -> bool:
    """Whether the l2 pattern lies on its side."""
    return bool(torch.randint(0, 2, (1,), generator=generator))


# --- parts -----------------------------------------------------------------------------------------------------------
def halvings(done: int, of: int) -> int:
    """How often p has been halved before candidate `done` of `of`."""
    at = done * SCHEDULE // max(of, 1)
    return sum(at > bound for bound in HALVINGS)


def hill(side: int, generator: torch.Generator) -> Tensor:
    """Section 4.2's pattern: two halves of opposite sign, each a hill of concentric squares, unit l2; side x side."""
    top = side // 2
    upper, lower = _half(top, side), _half(side - top, side)
    out = torch.cat([upper, -lower])
    out = out / torch.linalg.vector_norm(out)
    pattern: Tensor = out.T if turned(generator) else out
    return pattern


def _half(rows: int, columns: int) -> Tensor:
    """Eq. (2): sum over k from the distance to the centre on of 1 / (k + 1)^2, unit l2."""
    if not rows:
        return torch.zeros(0, columns)
    down, along = (torch.arange(rows) - rows // 2).abs(), (torch.arange(columns) - columns // 2).abs()
    terms = 1 / torch.arange(1, max(rows // 2, columns // 2) + 2).double().square()
    tails = terms.flip(0).cumsum(0).flip(0)  # of the terms from k on
    out: Tensor = tails[torch.maximum(down[:, None], along[None, :])]
    unit: Tensor = (out / torch.linalg.vector_norm(out)).float()
    return unit


def _tiles(channels: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """The l2 start: as many tiles of a fifth of the shorter side as fit, centred, each of one sign per channel."""
    side = max(min(height, width) // TILES, 1)
    out = torch.zeros(channels, height, width)
    for top in range((height % side) // 2, height - side + 1, side):
        for left in range((width % side) // 2, width - side + 1, side):
            tile = hill(side, generator) * signs((channels, 1, 1), generator)
            out[:, top : top + side, left : left + side] = tile
    return out


def _unit(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    unit: Tensor = x / (torch.linalg.vector_norm(x, dim=dims, keepdim=True) + 1e-12)
    return unit
