"""Files that are there whole or not at all, one writer at a time, documents that say their schema, and the errors of a
disk in words."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from redsam.errors import InputError


class StorageError(InputError):
    """The output folder cannot take what must be written: a full disk, a read-only folder, a folder in use."""


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn an OSError on `path` into one line that says what to do. What was stored before stays."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"The disk is full: {path} could not be written. What was finished is kept.",
                hint="Free some space and run the same command again; it goes on from there.",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StorageError(f"{path} cannot be written.", hint="Give an --out folder you may write to.") from error
        raise StorageError(f"{path} cannot be written: {error.strerror or error}.", hint="Check --out.") from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, and on the disk when this returns."""
    part = path.with_name(f".{path.name}.part")
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink()
            raise


@contextlib.contextmanager
def locked(path: Path, *, of: Path) -> Iterator[None]:
    """Hold the lock file `path` (its folder is made if missing) as the only writer `of` a file or folder; StorageError
    names the process that has it.

    The lock is the operating system's, so it ends with its holder however that ends: a killed run leaves a file but no
    lock, and the next run takes it over. The pid inside is for the message.
    """
    with storing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab+", buffering=0)  # unbuffered: a full disk must not raise again on closing
    with file:
        try:
            _lock(file)
        except BlockingIOError as error:
            file.seek(0)
            raise StorageError(
                f"{of} is being written by process {file.read().decode().strip() or 'unknown'}.",
                hint="Wait for it, or give another --out.",
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


@contextlib.contextmanager
def alone(out: Path) -> Iterator[None]:
    """Hold `out`, a file or a folder, as its only trainer; StorageError names the process that has it.

    The lock's file lies beside it and is taken away with the end of the training, not with its interruption: whoever
    comes then finds what was made.
    """
    out = out.expanduser().absolute()
    lock = out.parent / f"{out.name}.lock"
    with locked(lock, of=out):
        yield
        if out.exists():
            with contextlib.suppress(OSError):
                lock.unlink()


def read_document(path: Path, *, schema: int, hint: str) -> dict[str, Any] | None:
    """A JSON object that says `schema`, None where there is no file. Raises InputError for one that cannot be read and,
    with the hint, for one of another schema."""
    if not path.is_file():
        return None
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.", hint="Put it back, or make it again.") from error
    if not isinstance(told, dict) or told.get("schema") != schema:
        raise InputError(f"{path} is not of schema {schema}.", hint=hint)
    return told


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
