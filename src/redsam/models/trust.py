"""Whether checkpoints that are pickles may be opened. Nothing of this package unpickles unless it was told to.

A pickle is a program: opening one runs whatever its author put there, with the rights of who opens it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from redsam.errors import CheckpointError

_trusted: ContextVar[bool] = ContextVar("redsam_trusted", default=False)


@contextmanager
def trusting(on: bool = True) -> Iterator[None]:
    """Inside, checkpoints may be unpickled, or may not."""
    token = _trusted.set(on)
    try:
        yield
    finally:
        _trusted.reset(token)


def check_trust(path: Path) -> None:
    """Raise CheckpointError, with the reason, unless it was said that checkpoints are trusted."""
    if not _trusted.get():
        raise CheckpointError(
            f"{path.name} is a pickle: to open it is to run whatever code its author put into it.",
            hint="If you trust its source: redsam --trust-checkpoint COMMAND, or load(..., trust=True).",
        )
