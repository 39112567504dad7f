"""Looking on while an attack runs: whoever wants to see iterates says so around the call, and no attack knows of it.

    with watching(show):
        attack.run(...)

The common loops (gradients, queries) show what they hold at every step; attacks with loops of their own show nothing.
Watching changes no number. An error that the watcher raises ends the attack and comes out of `run`: so it is stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """One step. step: how many were taken, 0 at the start, of `steps`. images: float nx3xHxW in [0, 1], inside the
    threat, not rounded. active: their positions in the batch."""

    step: int
    steps: int
    images: Tensor
    active: Sequence[int]


Watcher = Callable[[Look], None]
_watcher: ContextVar[Watcher | None] = ContextVar("redsam_watcher", default=None)


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Attacks that run in here, in this thread, show every step to `watcher`."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def show(*, step: int, steps: int, images: Tensor, active: Sequence[int]) -> None:
    """Called by the loops. Costs nothing where nobody looks."""
    watcher = _watcher.get()
    if watcher is not None:
        watcher(Look(step=step, steps=steps, images=images.detach(), active=tuple(active)))
