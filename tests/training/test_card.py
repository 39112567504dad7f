"""The card of lab-text says what was measured, and what was not shown."""

from __future__ import annotations

from typing import Any

import card
import pytest

FACTS = {
    "parameters": 4_130_000, "step": 900, "batch": 8, "minutes": 68.0, "device": "cpu", "threads": 1, "seed": 4,
    "torch": "2.13", "start": "lab-b", "frozen": 3, "names": 151,
}  # fmt: skip


def row(answer: float, chance: float) -> dict[str, Any]:
    out: dict[str, Any] = {"pairs": 30, "images": 20, "answer": [answer, answer - 0.05, answer + 0.05]}
    out["mask"] = out["answer"]
    for key in card.CHANCES:
        out[key] = [chance, chance - 0.02, chance + 0.02]
        out[f"answer - {key}"] = [answer - chance, answer - chance - 0.06, answer - chance + 0.06]
    return out | {"presence": {"pooled": [0.7, 0.6, 0.8], "within a name": [0.6, 0.5, 0.7]}}


def test_the_card_warns_where_chance_is_as_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(card.BARS, "text", 0.33)
    good, poor = row(0.5, 0.3), row(0.3, 0.28)
    text = card.text_card(FACTS, {"sets": {"voc": good, "coco": poor}})
    assert "below the text bar of 0.33 on coco." in text and "ignores the name: other answer (coco)" in text
    assert "| answer | 0.500 (0.450 to 0.550) | 0.300 (0.250 to 0.350) |" in text
    assert "900 steps of 8 images" in text and "Pascal VOC" in text
    fine = card.text_card(FACTS, {"sets": {"voc": good}})
    assert "Not yet" not in fine and "not shown" not in fine
