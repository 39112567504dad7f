"""The cost of sam-autoattack: measured on the files, per prompt, and resumed for free."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import autoattack_cost as cost
import pytest


def row(value: float, gradients: int = 1) -> dict[str, Any]:
    return {"iou": value, "linf": 0.01, "l2": 1.0, "gradients": gradients, "forwards": 2, "seconds": 0.5}


def test_who_is_weaker_is_said_prompt_by_prompt() -> None:
    found = {
        "a": {cost.QUICK: row(0.08), cost.FULL: row(0.02, 5), "x": row(0.02), "y": row(0.5)},  # both succeed
        "b": {cost.QUICK: row(0.3), cost.FULL: row(0.4, 5), "x": row(0.35), "y": row(0.3)},
        "c": {cost.QUICK: row(0.2), cost.FULL: row(0.1, 5), "x": row(0.7), "y": row(0.1)},
    }
    told = cost.compare(found)
    assert told["weaker_at_threshold"] == [{"prompt": "c", "iou": 0.2, "member": "y", "member_iou": 0.1}]
    assert [(w["prompt"], w["member"]) for w in told["weaker_in_iou"]] == [("a", "x"), ("c", "y")]
    assert [(w["prompt"], w["member"]) for w in told["exhaustive_weaker_in_iou"]] == [("b", "x"), ("b", "y")]
    assert told["alone"] == {"gradients": 6, "forwards": 12, "seconds": 3.0}
    assert (told["gradients_of_all"], told["forwards_of_all"], told["seconds_of_all"]) == (0.5, 0.5, 0.5)
    assert cost.total(found)[cost.QUICK] == {
        "miou": pytest.approx(0.58 / 3), "asr10": pytest.approx(1 / 3), "gradients": 3, "forwards": 6, "seconds": 1.5
    }  # fmt: skip


def test_stopped_and_typed_again_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["x", "--model", "tiny", "--limit", "2", "--objects", "1", "--steps", "1", "--queries", "2",
               "--work", str(tmp_path / "work"), "--out", str(tmp_path / "o.json")]  # fmt: skip
    monkeypatch.setattr("sys.argv", command)
    measure, calls = cost.measure, []

    def counting(*args: Any) -> Any:
        calls.append(args[3].name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure(*args)

    monkeypatch.setattr(cost, "measure", counting)
    with pytest.raises(KeyboardInterrupt):
        cost.main()
    assert cost.main() == 0
    told = json.loads((tmp_path / "o.json").read_text())
    attacks = len(told["rows"])
    # At one step the list's two runs of almost-nothing are one and the same.
    assert len(told["members"]) == 6 and attacks == 2 + 6 - 1
    assert told["prompts"] == 2 and len(calls) == 2 * attacks + 1
    assert told["compared"]["weaker_at_threshold"] == told["compared"]["exhaustive_weaker_in_iou"] == []
    spent = [r["linf"] for each in told["each"].values() for label, r in each.items() if label != cost.QUICK]
    assert max(spent) <= 8 / 255 + 1e-9 and min(spent) > 0  # survivors only may find nothing left to do
    assert len(list((tmp_path / "work").glob("*/*/*.png"))) == 2 * attacks
    count = len(calls)
    assert cost.main() == 0 and len(calls) == count
