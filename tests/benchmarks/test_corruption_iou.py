"""Means, exceptions and resume by hand, on made-up lines; the script itself runs in minutes on real photographs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import corruption_iou as script
import pytest


def line(image: str, name: str, psnr: list[float | None], first: list[float | None], last: list[float | None]) -> Any:
    by = {"1": first, "5": last}
    return {
        "image": f"bsds_test/{image}", "corruption": name, "bytes": "b", "model": "m", "kinds": ["point", "box"],
        "before": [0.5, 0.9], "psnr": psnr, "iou": {"truth": by, "clean": by},
    }  # fmt: skip


FALLING = [30.0, 28.0, 26.0, 24.0, 22.0]


def test_means_differences_and_exceptions_by_hand() -> None:
    rows = [line(str(i), "fog", FALLING, [0.4 + i / 100, 0.8], [0.1 + i / 100, 0.8 + (-1) ** i / 10]) for i in range(6)]
    odd = [line(str(i), "elastic", [20.0, 19.0, 21.0, 20.0, 18.0], [0.4, 0.8], [0.6, 0.7]) for i in range(6)]
    fog, elastic = script.summary({"fog": rows, "elastic": odd})
    assert fog["psnr"] == FALLING and fog["rises"] == [] and elastic["rises"] == ["2 to 3"]
    value, lo, hi = fog["iou"]["point/truth"]["1"]
    assert value == pytest.approx(0.425) and lo < value < hi
    assert fog["drop"]["point/truth"] == pytest.approx([-0.3] * 3), "paired: what is common to an image cancels"
    assert [script.verdict(fog["drop"][k]) for k in ("point/truth", "box/truth")] == ["lower", "undecided"]
    assert script.verdict(elastic["drop"]["point/truth"]) == "higher"
    told = script.exceptions([fog, elastic])
    assert told[0] == "elastic: mean PSNR does not fall from 2 to 3"
    assert [t.split(":")[0] for t in told[1:]] == ["fog", "elastic"]
    assert "point" not in told[1] and "point against truth +0.20 [+0.20, +0.20] (higher)" in told[2]


def test_a_prompt_that_left_once_is_in_no_mean() -> None:
    rows = [
        line("0", "elastic", FALLING, [0.4, 0.8], [None, 0.7]),
        line("1", "elastic", FALLING, [0.2, 0.8], [0.1, 0.7]),
    ]
    (found,) = script.summary({"elastic": rows})
    assert found["iou"]["point/truth"]["1"][0] == pytest.approx(0.2)
    assert found["iou"]["box/truth"]["1"][0] == pytest.approx(0.8)


def test_lines_of_other_weights_and_torn_lines_are_passed_over(tmp_path: Path) -> None:
    mine, other = line("0", "fog", FALLING, [0.1, 0.1], [0.1, 0.1]), line("1", "fog", FALLING, [0.1, 0.1], [0.1, 0.1])
    work = tmp_path / "work.jsonl"
    work.write_text(f"{json.dumps(mine)}\n{json.dumps(other | {'model': 'n'})}\n" + json.dumps(mine)[:50])
    assert list(script.seen(work, "m")) == [("bsds_test/0", "fog", "b")]
    assert script.seen(tmp_path / "none", "m") == {}


def test_bytes_tell_corruptions_apart() -> None:
    assert script.made_of("fog") == script.made_of("fog") != script.made_of("contrast")
