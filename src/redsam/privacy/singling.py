"""Which names single out their own person: the test that carries the error rate of "knows".

Every real name and every decoy (an invented name) is asked on the same pictures, so that each has a skill on each
person: a table of strings by people. From a person's skills is taken the ATTRACTION quantile of all strings on that
person (faces that attract any name). A string's lead is then how far its best person is ahead of its second best; where
another string does better on that best person, it is negative, by how far it is behind or would be ahead, the lesser. A
string FAILS when it is a decoy, or a real name whose best person is somebody else. The bar is the largest lead among
the failures (the second largest where `allowed` says two, and so on); a name that leads to its own person by more has
singled it out.

Why this holds. Let names the model does not know tell nothing about who is who, and decoys be names like them. Then,
given everything the model does, which unknown string belongs to which unknown person or is a decoy is a uniform draw.
The table, and with it every lead, every best person and the order of leads, does not depend on that draw. Walk the
strings from the largest lead down. The first unknown one makes a false claim only if the draw has given it, of M + U
places (M decoys, U unknown people), its best person: probability at most 1 / (M + 1), however many names are known or
asked, whatever the model does with the others (marks everything, prefers a tile or a person, ties every name to some
face, marks those it does not recognise). Otherwise it has failed, and sets the bar. It is target-decoy competition
(Elias and Gygi 2007; for a family-wise rate Janson and Su 2016) with people as the places to be won.

Names that tell something break it by as much as they tell: a name that says woman competes with the women's decoys
alone. So only half of the decoys are counted in the error rate: a name may tell to which half of the people somebody
belongs. Names that tell more (age, origin, rank) need decoys that tell the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redsam.errors import InputError
from redsam.privacy.evidence import Array

ATTRACTION = 0.9


@dataclass(frozen=True, kw_only=True, eq=False)
class Singled:
    """lead: of each string; of a real name, how far its own person is ahead, negative when behind. bar: see above."""

    lead: Array
    bar: float
    passed: NDArray[np.bool_]


def allowed(decoys: int, alpha: float) -> int:
    """How many failures a walk may meet: the largest v with sum over k < v of 1 / (decoys / 2 + 1 - k) <= alpha.

    Raises InputError where even one is too many.
    """
    places, spent, found = decoys // 2 + 1, 0.0, 0
    while places - found > 1 and spent + 1 / (places - found) <= alpha + 1e-12:
        spent += 1 / (places - found)
        found += 1
    if not found:
        need = 2 * (int(np.ceil(1 / alpha - 1e-9)) - 1)
        raise InputError(
            f"{decoys} invented names cannot carry an error rate of {alpha:g}.",
            hint=f"Type: --alpha 0.05, or give a file with {need} names: --decoys FILE",
        )
    return found


def table(people: NDArray[np.int64], asked: NDArray[np.bool_], names: int) -> Array:
    """SxN mean skill of every string on every person; NaN for a person who was never drawn.

    people: GxT. asked: GxSxT, which slots of a grid a string marked. Skill: (marked - share marked) T / (T - 1).
    """
    tiles = people.shape[1]
    marked = asked.astype(np.float64)
    skill = (marked - marked.mean(2, keepdims=True)) * tiles / (tiles - 1)
    total = np.zeros((names, asked.shape[1]))
    np.add.at(total, people.ravel(), skill.transpose(0, 2, 1).reshape(-1, asked.shape[1]))
    count = np.bincount(people.ravel(), minlength=names)
    return np.asarray(np.where(count > 0, total.T / np.maximum(count, 1), np.nan))


def single_out(skill: Array, names: int, *, allow: int) -> Singled:
    """skill: SxN of `table`, the first `names` strings are the people's own, the rest decoys."""
    drawn = ~np.isnan(skill[0])
    strings = len(skill)
    lead = np.full(strings, -1.0)
    fits = np.zeros(strings, dtype=bool)
    if drawn.sum() >= 2:
        level = skill[:, drawn] - np.quantile(skill[:, drawn], ATTRACTION, axis=0)
        places = np.flatnonzero(drawn)
        best = level.argmax(1)
        ordered = np.sort(level, axis=1)
        gap = ordered[:, -1] - ordered[:, -2]
        behind = level[np.arange(strings), best] - level.max(0)[best]  # 0 for the string that does best on its person
        lead = np.where(behind < 0, -np.minimum(-behind, gap), gap)
        fits[:names] = places[best[:names]] == np.arange(names)
    failures = np.sort(lead[~fits])[::-1]
    bar = max(float(failures[allow - 1]), 0.0) if len(failures) >= allow else 0.0
    passed = (fits & (lead > bar))[:names]
    shown = lead.copy()
    if drawn.sum() >= 2:  # a name whose best person is another is behind by so much
        own = np.searchsorted(places, np.arange(names)[drawn])
        rows = np.flatnonzero(drawn)
        shown[rows] = np.where(fits[rows], lead[rows], level[rows, own] - ordered[rows, -1])
    return Singled(lead=shown, bar=bar, passed=passed)
