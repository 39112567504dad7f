"""Cell identity: canonical, stable, the same from a plan and from a finished spec.json."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redsam.bench.spec import Cell, canonical, digest
from redsam.errors import InputError

FIELDS = {
    "model": {"name": "m", "family": "sam", "fingerprint": "0" * 16},
    "probe": {"kind": "attack", "name": "pgd", "args": {"steps": 40, "step_size": None}},
    "threat": {"norm": "linf", "eps": 8 / 255},
    "data": {"name": "d", "fingerprint": "1" * 16, "ids_hash": "2" * 16},
    "protocol": {"name": "point", "args": {}},
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_id_is_written_down() -> None:
    """A change of this number makes every finished run of every user start again: raise SCHEMA when it is meant."""
    assert Cell(**FIELDS).id == digest(Cell(**FIELDS).spec())
    assert Cell(**FIELDS).id == KNOWN_ID


KNOWN_ID = "9e7a1624eac520bc"


def test_same_from_plan_and_from_file() -> None:
    cell = Cell(**FIELDS)
    again = Cell.from_spec(json.loads(json.dumps(cell.spec(), indent=1)))
    assert again.id == cell.id and again == Cell.from_spec(cell.spec())


def test_order_of_keys_and_tuples_do_not_matter() -> None:
    turned = {key: dict(reversed(list(value.items()))) for key, value in reversed(FIELDS.items())}
    assert Cell(**turned).id == Cell(**FIELDS).id
    assert digest({"a": (1, 2)}) == digest({"a": [1, 2]})


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"select": "area"},
        {"joint": False},
        {"objects": "automatic"},
        {"threat": {"norm": "linf", "eps": 4 / 255}},
        {"defense": {"name": "jpeg"}},
        {"protocol": {"name": "box", "args": {}}},
    ],
)
def test_every_field_matters(change: dict) -> None:
    assert Cell(**(FIELDS | change)).id != Cell(**FIELDS).id


@given(JSON)
def test_canonical_round_trips(value: object) -> None:
    assert canonical(json.loads(canonical(value))) == canonical(value)


def test_not_a_number_is_refused() -> None:
    with pytest.raises(InputError, match="JSON"):
        digest({"eps": float("nan")})
    with pytest.raises(InputError, match="schema 7"):
        Cell.from_spec(Cell(**FIELDS).spec() | {"schema": 7})
