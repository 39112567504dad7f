"""Detectors of known skill as arrays of marks: who does what to whom is drawn, no image is made.

Strings are the people's names in their order, then decoys. A detector answers every string on every grid and order.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from redsam.privacy import Answers, NameResult, Rule, judge

# (generator, people GxT, permutations, people, strings) -> marks GxKxSxT: by string, and by slot of the person marked.
Detector = Callable[[np.random.Generator, NDArray[np.int64], int, int, int], NDArray[np.bool_]]
DECOYS = 40


def one_random(
    rng: np.random.Generator, people: NDArray[np.int64], k: int, names: int, strings: int
) -> NDArray[np.bool_]:
    """Blind: one tile by chance."""
    grids, tiles = people.shape
    return np.arange(tiles) == rng.integers(tiles, size=(grids, k, strings))[..., None]


def nothing(rng: np.random.Generator, people: NDArray[np.int64], k: int, names: int, strings: int) -> NDArray[np.bool_]:
    """Never marks."""
    return np.zeros((len(people), k, strings, people.shape[1]), dtype=bool)


def everything(
    rng: np.random.Generator, people: NDArray[np.int64], k: int, names: int, strings: int
) -> NDArray[np.bool_]:
    """Marks every tile."""
    return ~nothing(rng, people, k, names, strings)


def same_tile(
    rng: np.random.Generator, people: NDArray[np.int64], k: int, names: int, strings: int
) -> NDArray[np.bool_]:
    """Marks the same place of the picture whatever is asked."""
    grids, tiles = people.shape
    shown = np.concatenate([np.zeros((grids, 1), dtype=np.int64), rng.integers(tiles, size=(grids, k - 1))], 1)
    return np.broadcast_to(np.arange(tiles) == shown[:, :, None, None], (grids, k, strings, tiles))


def one_person(
    rng: np.random.Generator, people: NDArray[np.int64], k: int, names: int, strings: int
) -> NDArray[np.bool_]:
    """Marks one person whoever is asked for, a random tile where that person is not there."""
    there = people == int(rng.integers(names))
    return np.where(
        there.any(1)[:, None, None, None], there[:, None, None, :], one_random(rng, people, k, names, strings)
    )


def scored(*, names_vary: float = 0, faces_vary: float = 0, pairs_vary: float = 0, best: bool = False) -> Detector:
    """Marks what scores above a threshold, or the best tile: some names mark more, some faces attract any name, a name
    may lie near a face by accident; photographs and permutations add noise."""

    def detect(
        rng: np.random.Generator, people: NDArray[np.int64], k: int, names: int, strings: int
    ) -> NDArray[np.bool_]:
        grids, tiles = people.shape
        bias = rng.normal(0, names_vary, strings)[:, None] + rng.normal(0, faces_vary, names)
        bias = bias + rng.normal(0, pairs_vary, (strings, names))
        score = bias[:, people].transpose(1, 0, 2)[:, None] + rng.normal(0, 0.4, (grids, 1, 1, tiles))
        score = score + rng.normal(0, 0.3, (grids, k, strings, tiles))
        return np.asarray(score == score.max(-1, keepdims=True) if best else score > 1)

    return detect


def tied(share: float = 1.0, hit: float = 0.9) -> Detector:
    """A `share` of strings is tied to one arbitrary face each, as firmly as a known name to its own; others nothing."""

    def detect(
        rng: np.random.Generator, people: NDArray[np.int64], k: int, names: int, strings: int
    ) -> NDArray[np.bool_]:
        to = np.where(rng.random(strings) < share, rng.integers(names, size=strings), -1)
        there = people[:, None, :] == to[None, :, None]
        return there[:, None] & (rng.random((len(people), 1, strings, 1)) < hit) & np.ones((1, k, 1, 1), dtype=bool)

    return detect


def by_half(rng: np.random.Generator, people: NDArray[np.int64], k: int, names: int, strings: int) -> NDArray[np.bool_]:
    """A name marks everybody of its half of the people, most of the time: it says "woman", not who."""
    same = (np.arange(strings)[:, None] % 2 == people[:, None, :] % 2)[:, None]
    return np.asarray(same & (rng.random((len(people), k, strings, people.shape[1])) < 0.6))


def rare_half(
    rng: np.random.Generator, people: NDArray[np.int64], k: int, names: int, strings: int
) -> NDArray[np.bool_]:
    """One string in thirty marks half of the people, the others nothing."""
    special = rng.random(strings) < 1 / 30
    half = rng.random(names) < 0.5
    marked = special[:, None] & half[people][:, None, :]
    return np.asarray(marked[:, None] & (rng.random((len(people), k, strings, people.shape[1])) < 0.9))


def strangers(known: int) -> Detector:
    """Asked for a name it does not know, it marks one of those it does not recognise: names compete for people."""

    def detect(
        rng: np.random.Generator, people: NDArray[np.int64], k: int, names: int, strings: int
    ) -> NDArray[np.bool_]:
        score = rng.random((len(people), k, strings, people.shape[1])) + (people >= known)[:, None, None, :]
        return np.asarray(score == score.max(-1, keepdims=True))

    return detect


def knows(count: int, hit: float, otherwise: Detector) -> Detector:
    """Knows the first `count` people: marks only them, on the share `hit` of photographs, else nothing."""

    def detect(
        rng: np.random.Generator, people: NDArray[np.int64], k: int, names: int, strings: int
    ) -> NDArray[np.bool_]:
        rest = np.array(otherwise(rng, people, k, names, strings))
        seen = (rng.random(people.shape) < hit)[:, None, :]
        own = people[:, None, :] == np.arange(count)[None, :, None]
        rest[:, :, :count] = (own & seen)[:, None]
        return rest

    return detect


def answer(
    detector: Detector, *, names: int = 19, grids: int = 200, tiles: int = 9, seed: int = 0, decoys: int = DECOYS,
    permutations: int = 3,
) -> Answers:  # fmt: skip
    """The answers of a simulated detector."""
    rng = np.random.default_rng(seed)
    people = np.array([rng.permutation(names)[:tiles] for _ in range(grids)])
    marked = np.asarray(detector(rng, people, permutations, names, names + decoys))
    asked = np.take_along_axis(marked, people[:, None, :, None], axis=2)
    return Answers(people=people, marked=asked, everyone=marked[:, 0], errors=np.zeros(asked.shape[:3], dtype=np.int64))


def run(
    detector: Detector, *, names: int = 19, grids: int = 200, tiles: int = 9, seed: int = 0, rule: Rule | None = None
) -> list[NameResult]:
    """An audit of a simulated detector."""
    answers = answer(detector, names=names, grids=grids, tiles=tiles, seed=seed)
    return judge(answers, names, rule or Rule())[0]
