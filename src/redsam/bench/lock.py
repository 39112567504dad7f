"""One writer at a time for an output folder."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from redsam.bench.files import StorageError, storing


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold `root` (made if missing) as its only writer; StorageError names the process that has it.

    The lock is the operating system's on root/lock, so it ends with its holder however that ends: a killed run leaves a
    file but no lock, and the next run takes it over. The pid inside is for the message.
    """
    path = root / "lock"
    with storing(root):
        root.mkdir(parents=True, exist_ok=True)
        file = path.open("ab+", buffering=0)  # unbuffered: a full disk must not raise again on closing
    with file:
        try:
            _lock(file)
        except BlockingIOError as error:
            file.seek(0)
            raise StorageError(
                f"{root} is being written by process {file.read().decode().strip() or 'unknown'}.",
                hint="Wait for it, or give another --out folder.",
            ) from error
        except OSError as error:
            warnings.warn(f"{path}: this file system has no locks ({error.strerror})", stacklevel=2)
        with storing(path):
            file.truncate(0)
            file.write(f"{os.getpid()}\n".encode())
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                file.truncate(0)


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> None:
        try:
            file.seek(1 << 20)  # a byte beyond the pid, which stays readable
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error

else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
