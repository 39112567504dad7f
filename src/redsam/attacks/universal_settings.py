"""What a universal training is made from, in words and numbers that tell two trainings apart."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, cast

from redsam.errors import InputError
from redsam.models.base import Segmenter
from redsam.types import Sample, Scene, to_uint8

Images = Sequence[Scene] | Sequence[Sample]
Prompting = Callable[..., Sample]  # a prompt protocol: (scene, seed=...) to a sample


def same(settings: Mapping[str, Any], found: Mapping[str, Any], path: Path, what: str) -> None:
    """Raise InputError that names the first setting that differs."""
    for key, value in settings.items():
        # The model's name is how it was typed; its fingerprint is what it is.
        if key != "model" and found.get(key) != value:
            there, here = _short(found.get(key), value), _short(value, found.get(key))
            raise InputError(
                f"{path} {what}: {key} is {there} there and {here} here.", hint="Delete it, or give another --out."
            )


def _short(value: Any, other: Any) -> str:
    """Of an attack's spec only the arguments that differ from the other's."""
    if isinstance(value, Mapping) and isinstance(other, Mapping) and value.get("name") == other.get("name"):
        theirs = other.get("args", {})
        return ", ".join(f"{k}={v}" for k, v in value.get("args", {}).items() if theirs.get(k) != v)
    return str(value.get("name") if isinstance(value, Mapping) else value)


def ids_of(images: Images) -> Sequence[str]:
    """Ids without reading the images where the data set knows them."""
    known = getattr(images, "ids", None)
    return cast(Sequence[str], known) if known is not None else [item.id for item in images]


def fingerprint(images: Images) -> str:
    """The data set's own, or one of the ids and pixels."""
    known = getattr(images, "fingerprint", None)
    if known is not None:
        return str(known)
    digest = hashlib.sha256()
    for item in images:
        digest.update(item.id.encode())
        digest.update(to_uint8(item.image).numpy().tobytes())
    return digest.hexdigest()[:16]


def side_of(segmenter: Segmenter, images: Images) -> int:
    """Side of the model's own frame; every image has the same."""
    for index in range(len(images)):
        with contextlib.suppress(InputError):
            return segmenter.frame(*images[index].size).side
    raise InputError(f"None of the {len(images)} images can be read.")


def described(protocol: Prompting | None) -> dict[str, Any] | None:
    """A protocol by its name and options."""
    if protocol is None:
        return None
    if is_dataclass(protocol) and not isinstance(protocol, type):
        return {"name": type(protocol).__name__, "args": asdict(protocol)}
    return {"name": getattr(protocol, "__name__", repr(protocol)), "args": {}}
