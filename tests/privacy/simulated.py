"""Detectors of known skill as arrays of marks: who does what to whom is drawn, no image is made."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from redsam.privacy import Answers, NameResult, Rule, judge

# (generator, people GxT, permutations, names) -> marks GxKxTxT by slot of name and person.
Detector = Callable[[np.random.Generator, NDArray[np.int64], int, int], NDArray[np.bool_]]


def one_random(rng: np.random.Generator, people: NDArray[np.int64], k: int, names: int) -> NDArray[np.bool_]:
    """Blind: one tile by chance."""
    grids, tiles = people.shape
    return np.arange(tiles) == rng.integers(tiles, size=(grids, k, tiles))[..., None]


def nothing(rng: np.random.Generator, people: NDArray[np.int64], k: int, names: int) -> NDArray[np.bool_]:
    """Never marks."""
    return np.zeros((len(people), k, people.shape[1], people.shape[1]), dtype=bool)


def everything(rng: np.random.Generator, people: NDArray[np.int64], k: int, names: int) -> NDArray[np.bool_]:
    """Marks every tile."""
    return ~nothing(rng, people, k, names)


def scored(*, names_vary: float = 0, faces_vary: float = 0, pairs_vary: float = 0, best: bool = False) -> Detector:
    """Marks what scores above a threshold, or the best tile: some names mark more, some faces attract any name, a name
    may lie near a face by accident; photographs and permutations add noise."""

    def detect(rng: np.random.Generator, people: NDArray[np.int64], k: int, names: int) -> NDArray[np.bool_]:
        grids, tiles = people.shape
        name, face = rng.normal(0, names_vary, names), rng.normal(0, faces_vary, names)
        pair = rng.normal(0, pairs_vary, (names, names))
        score = name[people][:, None, :, None] + face[people][:, None, None, :]
        score = score + pair[people[:, :, None], people[:, None, :]][:, None] + rng.normal(0, 0.4, (grids, 1, 1, tiles))
        score = score + rng.normal(0, 0.3, (grids, k, tiles, tiles))
        return np.asarray(np.arange(tiles) == score.argmax(-1)[..., None] if best else score > 1)

    return detect


def by_half(rng: np.random.Generator, people: NDArray[np.int64], k: int, names: int) -> NDArray[np.bool_]:
    """A name marks everybody of its half of the people, most of the time: it says "woman", not who."""
    same = (people[:, :, None] % 2 == people[:, None, :] % 2)[:, None]
    return np.asarray(same & (rng.random((len(people), k, people.shape[1], people.shape[1])) < 0.6))


def knows(count: int, hit: float, otherwise: Detector) -> Detector:
    """Knows the first `count` people: marks only them, on the share `hit` of photographs, else nothing."""

    def detect(rng: np.random.Generator, people: NDArray[np.int64], k: int, names: int) -> NDArray[np.bool_]:
        rest = otherwise(rng, people, k, names)
        own = np.eye(people.shape[1], dtype=bool)[None, None] & (rng.random((*people.shape, 1)) < hit)[:, None]
        return np.where((people < count)[:, None, :, None], np.broadcast_to(own, rest.shape), rest)

    return detect


def run(
    detector: Detector, *, names: int = 19, grids: int = 200, tiles: int = 9, seed: int = 0, rule: Rule | None = None
) -> list[NameResult]:
    """An audit of a simulated detector."""
    rng = np.random.default_rng(seed)
    people = np.array([rng.permutation(names)[:tiles] for _ in range(grids)])
    marked = detector(rng, people, 3, names)
    answers = Answers(people=people, marked=marked, errors=np.zeros(marked.shape[:3], dtype=np.int64))
    return judge(answers, names, rule or Rule())
