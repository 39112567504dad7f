"""The one registry: things declare themselves beside their implementation, and suites walk what is declared.

`@register("attack", "pgd", paper="...", year=2018)` above a class or function is all it takes: every module of the
packages in `ROOMS` is imported on the first look-up, so a new attack, objective, metric, protocol, reader or model
family is one new file and no edit elsewhere. A module whose name begins with `_` declares nothing and is left alone: it
may import what is slow or optional. Third parties use the entry-point group `redsam.plugins`.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import pkgutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar

from redsam.errors import UnknownName

T = TypeVar("T")

# Rooms whose modules may declare something. A single module is a room of one.
ROOMS = (
    "models",
    "objectives",
    "attacks",
    "corruptions",
    "defenses",
    "tuning",
    "privacy",
    "backdoor",
    "data",
    "metrics",
    "studies",
)

_entries: dict[tuple[str, str], Entry] = {}
_loaded = False


@dataclass(frozen=True)
class Entry:
    """One declared thing: its kind and name, the object itself, and its metadata (paper, year, norm, cost, ...)."""

    kind: str
    name: str
    obj: Any
    meta: Mapping[str, Any]

    @property
    def summary(self) -> str:
        """First line of the object's docstring."""
        return (getattr(self.obj, "__doc__", None) or "").strip().split("\n")[0]


def register(kind: str, name: str, /, **meta: Any) -> Callable[[T], T]:
    """Declare the decorated object as `name` of `kind`; a second declaration of one name is a programming error."""

    def declare(obj: T) -> T:
        key = (kind, name)
        if key in _entries and getattr(_entries[key].obj, "__qualname__", "") != getattr(obj, "__qualname__", ""):
            raise ValueError(f"{kind} '{name}' is declared twice")
        _entries[key] = Entry(kind=kind, name=name, obj=obj, meta=dict(meta))
        return obj

    return declare


def _discover() -> None:
    global _loaded
    if _loaded:
        return
    _loaded = True  # set first: a module may look up the registry while it is being imported
    for room in ROOMS:
        try:
            module = importlib.import_module(f"redsam.{room}")
        except ModuleNotFoundError as error:
            if error.name == f"redsam.{room}":
                continue  # a room not built yet
            raise
        for info in pkgutil.iter_modules(getattr(module, "__path__", ())):
            if not info.name.startswith("_"):
                importlib.import_module(f"redsam.{room}.{info.name}")
    for point in importlib.metadata.entry_points(group="redsam.plugins"):
        try:
            point.load()
        except Exception as error:  # a broken plug-in must not take the library down with it
            warnings.warn(f"plug-in '{point.name}' could not be loaded: {error}", stacklevel=2)


def entries(kind: str) -> list[Entry]:
    """Every declared thing of a kind, sorted by name."""
    _discover()
    return sorted((e for (k, _), e in _entries.items() if k == kind), key=lambda e: e.name)


def kinds() -> list[str]:
    """The kinds that have at least one entry."""
    _discover()
    return sorted({k for k, _ in _entries})


def names(kind: str) -> list[str]:
    """Names of a kind, sorted."""
    return [e.name for e in entries(kind)]


def get(kind: str, name: str) -> Entry:
    """Look one up. Raises UnknownName with the nearest names."""
    _discover()
    entry = _entries.get((kind, name))
    if entry is None:
        raise unknown(kind, name, names(kind))
    return entry


def unknown(kind: str, name: str, known: list[str]) -> UnknownName:
    """The error for a name that is not among `known`, with the nearest ones."""
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(repr(n) for n in near)}?" if near else f"Known: {', '.join(known) or 'none'}."
    return UnknownName(f"There is no {kind} named '{name}'.", hint=hint)


def create(kind: str, name: str, /, **args: Any) -> Any:
    """Instantiate a declared class; an argument it does not take is an UnknownName that lists those it does."""
    obj = get(kind, name).obj
    if is_dataclass(obj):
        known = [f.name for f in fields(obj) if f.init]
        for arg in args:
            if arg not in known:
                raise unknown(f"option of {kind} '{name}'", arg, known)
    return obj(**args)


def spec_of(obj: Any) -> dict[str, Any]:
    """`{"name": ..., "args": {...}}` of a registered frozen dataclass instance; `create` makes it again from that."""
    for (_, name), entry in _entries.items():
        if entry.obj is type(obj):
            return {"name": name, "args": {f.name: getattr(obj, f.name) for f in fields(obj) if f.init}}
    raise ValueError(f"{type(obj).__name__} is not registered")


def name_of(obj: Any) -> str:
    """The name an instance's class is registered under; of an unregistered class its own."""
    try:
        return str(spec_of(obj)["name"])
    except ValueError:
        return type(obj).__name__
