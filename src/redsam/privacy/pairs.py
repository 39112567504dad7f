"""How every name does on every person: the sums behind the comparison of a person's own name with the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from redsam.privacy import evidence


class Pairs:
    """Sums over grids for every pair (name asked, person), both as indices of people."""

    def __init__(self, people: NDArray[np.int64], skills: evidence.Array, names: int) -> None:
        rows = np.broadcast_to(people[:, :, None], skills.shape)
        columns = np.broadcast_to(people[:, None, :], skills.shape)
        self.count = np.zeros((names, names), dtype=np.int64)
        self.sum, self.square = np.zeros((names, names)), np.zeros((names, names))
        np.add.at(self.count, (rows, columns), 1)
        np.add.at(self.sum, (rows, columns), skills)
        np.add.at(self.square, (rows, columns), skills**2)

    def others(self, person: int) -> NDArray[np.int64]:
        """Names asked at least once where the person was there, without the person's own."""
        there = self.count[:, person] > 0
        there[person] = False
        found: NDArray[np.int64] = np.flatnonzero(there)
        return found

    def column(self, person: int, least: float) -> tuple[float, int, evidence.Array, NDArray[np.int64], float]:
        """The arguments of `name_test`; the variance of one grid is at least that of a blind detector."""
        other, grids = self.others(person), int(self.count[person, person])
        count, total, square = (a[other, person] for a in (self.count, self.sum, self.square))
        inside, free = float((square - total**2 / np.maximum(count, 1)).sum()), int((count - 1).sum())
        within = max(inside / free, least) if free > 0 else max(1.0, least)
        return float(self.sum[person, person] / grids), grids, total / count, count, within

    def elsewhere(self, person: int) -> float | None:
        """Mean skill of the other names on this person; None when there were none."""
        other = self.others(person)
        return float((self.sum[other, person] / self.count[other, person]).mean()) if len(other) else None

    def accidents(self) -> evidence.Array:
        """`accident_rate` of every name. Skills on other people rest on fewer grids than own ones, so they are shrunk
        towards 0 by their reliability: variance between pairs over variance between pairs plus noise."""
        own = np.diag(self.sum) / np.maximum(np.diag(self.count), 1)
        off = ~np.eye(len(own), dtype=bool) & (self.count > 0)
        count, total, square = self.count[off], self.sum[off], self.square[off]
        if len(count) < 2:
            return np.ones(len(own))
        free = int((count - 1).sum())
        noise = float((square - total**2 / count).sum()) / free / count if free > 0 else 1.0 / count
        between = max(float((total / count).var(ddof=1)) - float(noise.mean()), 0.0)
        if between == 0:
            return evidence.accident_rate(own, np.zeros(len(count)))
        return evidence.accident_rate(own, total / count * between / (between + noise))
