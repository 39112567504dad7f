"""Which draw of a randomised defence is looked at, and over how many an attacker averages (EOT).

A defence that draws anew for every image it sees is attacked in expectation over its draws (Athalye et al.,
"Synthesizing Robust Adversarial Examples", 2018). The number of draws is said once, around an attack (`expecting`);
whoever takes a gradient looks at each draw in turn (`looking_at`); whoever purifies asks which one it is (`current`).
Outside of both there is one draw, number 0, and nothing changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_count: ContextVar[int] = ContextVar("redsam_draws", default=1)
_index: ContextVar[int] = ContextVar("redsam_draw", default=0)


@contextmanager
def expecting(count: int) -> Iterator[None]:
    """Gradients in here are means over so many draws."""
    token = _count.set(count)
    try:
        yield
    finally:
        _count.reset(token)


@contextmanager
def looking_at(index: int) -> Iterator[None]:
    """What is purified in here is purified with this draw."""
    token = _index.set(index)
    try:
        yield
    finally:
        _index.reset(token)


def count() -> int:
    """Over how many draws a gradient is to be averaged."""
    return _count.get()


def current() -> int:
    """The draw that is looked at."""
    return _index.get()
