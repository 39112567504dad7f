"""Purifiers as text: `jpeg`, `jpeg:quality=50`, `jpeg:quality=50|median:size=5`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from redsam import registry
from redsam.defenses.base import Purifier
from redsam.errors import InputError

BETWEEN = "|"
# What is done with defences of other groups.
ELSEWHERE = {
    "tuning": "Harden the model with it (redsam harden) and give the folder as the model.",
    "smoothing": "Type: redsam certify IMAGE --box X0,Y0,X1,Y1",
}
SEPARATOR = re.compile(r",(?!\s*\w+\s*=)")


def parse(text: str) -> Purifier:
    """`name` or `name:option=value,option=value`; values are JSON or text. Raises UnknownName, InputError."""
    name, _, rest = text.strip().partition(":")
    options: dict[str, Any] = {}
    for pair in filter(None, rest.split(",")):
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not (key and equals):
            raise InputError(f"'{text}' is no defence.", hint="Type: NAME or NAME:OPTION=VALUE, as in jpeg:quality=50")
        options[key] = _value(value)
    return purifier(name, options)


def purifier(name: str, options: dict[str, Any]) -> Purifier:
    """A purifier by name. Raises UnknownName, and InputError for a defence that is none."""
    entry = registry.get("defense", name)
    if not (isinstance(entry.obj, type) and issubclass(entry.obj, Purifier)):
        raise InputError(
            f"'{name}' ({entry.meta.get('group')}) makes no image of an image: it cannot stand before a model.",
            hint=ELSEWHERE.get(str(entry.meta.get("group")), "Type: redsam list defenses"),
        )
    try:
        made: Purifier = registry.create("defense", name, **options)
    except TypeError as error:  # a text where a number is compared
        raise InputError(f"'{name}' does not take these options: {error}.") from error
    return made


def chain(defenses: str | Purifier | Sequence[str | Purifier]) -> tuple[Purifier, ...]:
    """Purifiers in the order an image passes them; a text may hold several, apart by `|`."""
    given = [defenses] if isinstance(defenses, str | Purifier) else list(defenses)
    out: list[Purifier] = []
    for one in given:
        out += [one] if isinstance(one, Purifier) else [parse(part) for part in one.split(BETWEEN) if part.strip()]
    return tuple(out)


def apart(text: str) -> list[str]:
    """`jpeg:quality=50,median` to its parts: a comma followed by `option=` belongs to the options before it."""
    return [part.strip() for part in SEPARATOR.split(text) if part.strip()]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
