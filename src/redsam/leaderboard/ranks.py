"""Ranks that say no more than their intervals do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Span = tuple[float, float, float]  # value, lower and upper end


@dataclass(frozen=True, kw_only=True)
class Standing:
    """best: 1 + how many entries lie surely above this one; worst: how many do not lie surely below it, itself
    included. tied: positions of the entries whose intervals overlap with this one's."""

    best: int
    worst: int
    tied: tuple[int, ...]

    @property
    def text(self) -> str:
        """`1`, or `2–4` where intervals overlap."""
        return str(self.best) if self.best == self.worst else f"{self.best}\N{EN DASH}{self.worst}"


def standings(spans: Sequence[Span]) -> list[Standing]:
    """The standing of each, higher values first; in the order given.

    Two entries are told apart when their intervals do not overlap. That is cautious: measured on the same images, two
    may differ surely although their intervals overlap a little, so a tie is "not told apart here", not "equal".
    """
    out = []
    for i, (_, lo, hi) in enumerate(spans):
        above = sum(other[1] > hi for other in spans)
        below = sum(other[2] < lo for other in spans)
        tied = tuple(j for j, other in enumerate(spans) if j != i and other[1] <= hi and other[2] >= lo)
        out.append(Standing(best=1 + above, worst=len(spans) - below, tied=tied))
    return out
