"""Evidence for one name: a test that it finds its person, one that it does not, corrections for many names.

The grid is the unit: its permutations show the same photographs, so they are averaged first and never counted as
independent. Advantages over chance are in units of skill, (hit - marked / T) T / (T - 1) for T tiles: 1 is a detector
that marks the named person and nobody else, 0 is one that marks at random, nothing or everything, whatever their number
of marks, -1 is one that marks everybody but the named person.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Correction = Literal["holm", "benjamini-hochberg"]
# Stakes of the betting test, as parts of the largest one that can never lose everything.
STAKES = np.linspace(0.02, 0.98, 49)


def tile_test(marked: NDArray[np.int64], own: NDArray[np.int64]) -> float:
    """Exact one-sided permutation test that a name finds its person; p-value.

    marked: GxT, in how many of a grid's permutations the name marked each of its T people. own: G, which of the T is
    the named one. Null: within every grid each of the T people is equally likely to be the named one, one draw a grid.
    The statistic is the number of permutations in which the named person was marked; its distribution is the
    convolution of the grids' own, so nothing is sampled and the observed assignment is among those counted.
    """
    grids, tiles = marked.shape
    if grids == 0:
        return 1.0
    mass = np.ones(1)
    for row in marked:
        mass = np.convolve(mass, np.bincount(row) / tiles)
    seen = int(marked[np.arange(grids), own].sum())
    return float(min(1.0, mass[seen:].sum()))


def shortfall_test(values: Array, margin: float) -> float:
    """Test that the mean advantage lies below `margin`; p-value of the null "it is at least `margin`".

    values: one advantage a grid, in [-1, 1]. Exact for any distribution and any number of grids: with y = (value + 1)/2
    and m = (margin + 1)/2, the wealth of a bettor, prod(1 + stake (m - y)), is at most 1 on average under the null, and
    so is its mean over several stakes; by Markov's inequality 1 / wealth is a p-value (Waudby-Smith and Ramdas 2024,
    "Estimating means of bounded random variables by betting", here with fixed stakes).
    """
    centre = (margin + 1) / 2
    if not 0 < centre < 1:
        return 1.0 if centre <= 0 else 0.0
    y = (np.asarray(values, dtype=np.float64) + 1) / 2
    stakes = STAKES / (1 - centre)
    logs = np.log1p(stakes[:, None] * (centre - y)[None]).sum(1)
    top = float(logs.max())
    log_wealth = top + float(np.log(np.mean(np.exp(logs - top))))
    return float(np.exp(-max(log_wealth, 0.0)))


def upper_bound(values: Array, alpha: float) -> float:
    """Smallest margin below which the mean is shown to lie at level alpha, by bisection; 1 when nothing is shown."""
    low, high = -1.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if shortfall_test(values, middle) <= alpha else (middle, high)
    return high


def lower_bound(values: Array, alpha: float) -> float:
    """The same from below."""
    return -upper_bound(-np.asarray(values), alpha)


def adjusted(p: Array, correction: Correction) -> Array:
    """p-values adjusted for many names: reject where they are at most alpha.

    holm: the chance of even one false claim is at most alpha, under any dependence (Holm 1979). benjamini-hochberg: the
    expected share of false claims among those made is (Benjamini and Hochberg 1995; independent or positively dependent
    names).
    """
    count = len(p)
    if count == 0:
        return p
    order = np.argsort(p, kind="stable")
    ranks = np.arange(1, count + 1)
    if correction == "holm":
        stepped = np.maximum.accumulate(p[order] * (count - ranks + 1))
    else:
        stepped = np.minimum.accumulate((p[order] * count / ranks)[::-1])[::-1]
    out = np.empty(count)
    out[order] = np.minimum(stepped, 1.0)
    return out
