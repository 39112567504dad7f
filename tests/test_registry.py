"""The registry: declaration, look-up with suggestions, round trip through specs, and every declared thing is sound."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass

import pytest

from redsam import registry
from redsam.errors import RedsamError, UnknownName
from redsam.registry import Entry, register

KINDS = ("attack", "metric", "model", "objective", "protocol", "reader", "study")
ALL = [entry for kind in KINDS for entry in registry.entries(kind)]
VALUES = [entry for entry in ALL if is_dataclass(entry.obj)]


@pytest.fixture
def clean() -> Iterator[None]:
    """Forget what a test declares."""
    before = dict(registry._entries)
    yield
    registry._entries.clear()
    registry._entries.update(before)


def test_the_rooms_have_declared_their_kinds() -> None:
    assert set(KINDS) <= set(registry.kinds())
    assert {"fgsm", "bim", "pgd", "mifgsm", "apgd"} <= set(registry.names("attack"))
    assert {"sam", "sam2"} <= set(registry.names("model"))
    assert {"point", "box", "uad", "red-teaming"} <= set(registry.names("protocol"))


@pytest.mark.parametrize("entry", ALL, ids=[f"{e.kind}:{e.name}" for e in ALL])
def test_every_declared_thing_says_what_it_is(entry: Entry) -> None:
    assert entry.summary.endswith((".", ";", ":", ")")) or len(entry.summary) > 20
    assert entry.name == entry.name.lower()
    assert " " not in entry.name
    json.dumps(dict(entry.meta))
    if entry.kind == "attack":
        assert entry.meta["paper"] and 2010 < entry.meta["year"] < 2030


@pytest.mark.parametrize("entry", VALUES, ids=[f"{e.kind}:{e.name}" for e in VALUES])
def test_every_dataclass_round_trips_through_its_spec(entry: Entry) -> None:
    made = registry.create(entry.kind, entry.name)
    spec = json.loads(json.dumps(registry.spec_of(made)))
    assert spec["name"] == entry.name
    again = registry.create(entry.kind, spec["name"], **spec["args"])
    assert json.loads(json.dumps(registry.spec_of(again))) == spec
    assert type(again) is type(made)


def test_a_new_thing_is_one_declaration(clean: None) -> None:
    @register("attack", "nothing", paper="none", year=2026)
    @dataclass(frozen=True, kw_only=True)
    class Nothing:
        """Does nothing.

        More.
        """

        steps: int = 3

    assert registry.get("attack", "nothing").summary == "Does nothing."
    assert registry.create("attack", "nothing", steps=5) == Nothing(steps=5)
    assert registry.spec_of(Nothing(steps=5)) == {"name": "nothing", "args": {"steps": 5}}


def test_a_name_is_declared_once(clean: None) -> None:
    register("metric", "mine")(lambda: 1)

    def other() -> int:
        return 2

    with pytest.raises(ValueError, match="declared twice"):
        register("metric", "mine")(other)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match="no attack named 'pgdd'. Did you mean 'pgd'"):
        registry.get("attack", "pgdd")
    with pytest.raises(UnknownName, match="Known: .*fgsm"):
        registry.get("attack", "zzzzzzzz")


def test_an_unknown_option_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'steps'"):
        registry.create("attack", "pgd", stepps=3)


def test_what_is_not_declared_has_no_spec() -> None:
    with pytest.raises(ValueError, match="not registered"):
        registry.spec_of(object())


def test_an_error_carries_its_hint() -> None:
    error = RedsamError("It broke.", hint="Mend it.")
    assert (str(error), error.message, error.hint) == ("It broke. Mend it.", "It broke.", "Mend it.")
    assert str(RedsamError("It broke.")) == "It broke."
