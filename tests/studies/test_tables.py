"""How a value is written: like its interval, so that a reader compares digits of one kind."""

from __future__ import annotations

import pytest

from redsam.studies.tables import cell


@pytest.mark.parametrize(
    ("value", "lo", "hi", "expected"),
    [
        (0.4567, 0.4, 0.5, "0.457 [0.400, 0.500]"),
        (5.8e-05, -0.0008, 0.00101, "0.000 [-0.001, 0.001]"),
        (-6.5e-05, -0.002, 0.0009, "-0.000 [-0.002, 0.001]"),
        (5.8e-05, 1.2e-05, 0.0009, "5.8e-05 [1.2e-05, 0.0009]"),  # nothing would be left of all three
        (123.4, 99.4, 150.2, "123 [99.400, 150]"),
        (0.0, 0.0, 0.0, "0.000 [0.000, 0.000]"),
        (0.25, None, None, "0.250"),
        (2.5e-07, None, None, "2.5e-07"),
    ],
)
def test_value_and_interval(value: float, lo: float | None, hi: float | None, expected: str) -> None:
    assert cell({"x": value, "x_lo": lo, "x_hi": hi}, "x") == expected


def test_what_is_no_number() -> None:
    assert cell({}, "x") == "\N{EN DASH}" and cell({"x": "a|b"}, "x") == r"a\|b" and cell({"x": 8}, "x") == "8"
