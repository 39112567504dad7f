"""Dataset: a lazy, indexable sequence of scenes with stable ids and a fingerprint; and what a reader is."""

from __future__ import annotations

import difflib
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import overload

from redsam.errors import InputError
from redsam.types import Scene


def shared_root() -> Path | None:
    """The folder of shared photographs: `$REDSAM_DATA`, else `../shared/data` beside the project; None without one."""
    named = os.environ.get("REDSAM_DATA")
    root = Path(named) if named else Path(__file__).resolve().parents[4] / "shared" / "data"
    return root if root.is_dir() else None


@dataclass(frozen=True, kw_only=True)
class Item:
    """One scene before it is read. files: those it is made from. note: further text that decides what is in it
    (annotations out of a common JSON file), for the fingerprint."""

    id: str
    files: tuple[Path, ...]
    note: Callable[[], str] = lambda: ""


class Dataset(Sequence[Scene]):
    """A sequence of scenes, read from disk on access and not kept.

    `data[i]` raises InputError where a file is broken, so loop over indices and record the failure; iterating stops at
    the first one. Nothing is shuffled: ids are in the order of sorted names (or of the annotation file).
    """

    def __init__(self, *, name: str, items: Sequence[Item], load: Callable[[Item], Scene]) -> None:
        seen: set[str] = set()
        for item in items:
            if item.id in seen:
                raise InputError(f"{name}: two images share the name '{item.id}'.", hint="Rename one of them.")
            seen.add(item.id)
        self.name = name
        self._items = tuple(items)
        self._load = load

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the scenes in order, without reading any."""
        return tuple(item.id for item in self._items)

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> Scene: ...
    @overload
    def __getitem__(self, index: slice) -> Dataset: ...
    def __getitem__(self, index: int | slice) -> Scene | Dataset:
        if isinstance(index, slice):
            return self._only(self._items[index])
        return self._load(self._items[index])

    def path(self, name: str) -> Path:
        """The file that the scene of this id is made from, the photograph's where there are several."""
        found = next((item.files for item in self._items if item.id == name), ())
        if not found:
            raise InputError(f"{self.name}: image '{name}' is in no file.")
        return found[0]

    def limit(self, count: int | None) -> Dataset:
        """At most `count` scenes, evenly spaced over the order (scene floor(i n / count)); None keeps all.

        Evenly spaced rather than the first, because names are often sorted by condition or source.
        """
        if count is None or count >= len(self):
            return self
        if count < 1:
            raise InputError(f"A limit of {count} images leaves nothing.", hint="Type: --limit 1 or more.")
        return self._only([self._items[i * len(self) // count] for i in range(count)])

    def subset(self, ids: Iterable[str]) -> Dataset:
        """The scenes with these ids, in the order given."""
        known = {item.id: item for item in self._items}
        chosen = []
        for wanted in ids:
            if wanted not in known:
                near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.4)
                hint = f"Did you mean {' or '.join(near)}?" if near else f"It has {len(known)} images."
                raise InputError(f"{self.name}: there is no image '{wanted}'.", hint=hint)
            chosen.append(known[wanted])
        return self._only(chosen)

    def _only(self, items: Sequence[Item]) -> Dataset:
        return Dataset(name=self.name, items=items, load=self._load)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of the ids and contents of exactly these scenes; independent of where the files lie.

        A file that cannot be read counts as such (it will be a failed record), so that the fingerprint always exists.
        """
        whole = hashlib.sha256()
        for item in self._items:
            whole.update(item.id.encode())
            for file in item.files:
                whole.update(_digest(file))
            whole.update(hashlib.sha256(item.note().encode()).digest())
        return whole.hexdigest()[:16]


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return b"unreadable".ljust(32)


class Reader(ABC):
    """A way to read a path; subclasses are frozen dataclasses whose fields are the options.

    Declare with `@register("reader", name, rank=..., expects="...")`: lower ranks are asked first whether the path is
    theirs, `expects` is what the error message says when none answers.
    """

    @classmethod
    @abstractmethod
    def accepts(cls, path: Path) -> bool:
        """Cheap look at names, never at pixels: is this path mine?"""

    @abstractmethod
    def open(self, path: Path) -> Dataset:
        """List the scenes. Raises InputError that says what was expected and what was found."""
