"""The card of lab-ddpm says what was measured, and where a filter may do as well."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("diffusers")

import card_ddpm

FACTS = {
    "parameters": 2_470_000, "step": 900, "batch": 8, "side": 48, "minutes": 80.0, "device": "cpu", "threads": 1,
    "seed": 0, "torch": "2.13", "sets": {"voc": 300, "bsds": 100},
}  # fmt: skip


def row(lead: float) -> dict[str, Any]:
    ways = {"noisy": 20.0, "lab-ddpm": 30.0, "median:size=3": 26.0, "bilateral:space=1.5": 30.0 - lead}
    return {
        "level": 25.0, "t": 58, "n": 60, "best": "bilateral:space=1.5", "lead": [lead, lead - 0.5, lead + 0.5],
        "psnr": {key: [value, value - 1, value + 1] for key, value in ways.items()},
        "settings": {"median": "median:size=3", "bilateral": "bilateral:space=1.5"},
    }  # fmt: skip


def test_the_card_says_where_it_leads() -> None:
    settings = {"crop": 160, "tuning": 4, "sets": ["bsds_test"]}
    text = card_ddpm.card(FACTS, {"rows": [row(2.0)], "settings": settings})
    assert "Not shown" not in text and "30.00 (29.00 to 31.00)" in text and "2.00 (1.50 to 2.50)" in text
    assert "Pascal VOC" in text and "75% of photographs" in text
    assert "Not shown to beat" in card_ddpm.card(FACTS, {"rows": [row(2.0), row(0.2)], "settings": settings})
