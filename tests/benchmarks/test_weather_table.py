"""The weather tables from findings: every number in its place, what did not run said."""

from __future__ import annotations

from typing import Any

from weather_table import jobs, page, pivot, rows_of

from redsam.studies.weather import PUBLISHED

Row = dict[str, Any]


def finding(name: str, part: str, title: str, rows: list[Row]) -> Row:
    return {"name": name, "part": part, "tables": [{"title": title, "rows": rows}]}


def stable(condition: str, victim: str, miou: float) -> Row:
    ends = {"miou_lo": miou - 0.1, "miou_hi": miou + 0.1}
    return {
        "condition": condition,
        "victim": victim,
        "miou": miou,
        "n_images": 2,
        "n_prompts": 9,
        "origin": "measured",
    } | ends


def test_another_number_of_images_is_another_run(tmp_path: Any) -> None:
    assert {(j.name, j.part, j.limit) for j in jobs(6, 4)} == {
        ("weather", "camvid720", 6), ("texture", "camvid720", 4), ("weather", "acdc_weather", None),
    }  # fmt: skip
    assert len({j.folder(tmp_path) for limit in (3, 4) for j in jobs(limit, limit)}) == 5


def test_published_numbers_stand_in_front_and_only_measured_rows_are_taken() -> None:
    theirs = {"condition": "snow", "victim": "SAM-H", "miou": 0.8707, "origin": "another model and data"}
    found = [
        finding(
            "weather",
            "camvid720",
            "Stability: ...",
            [stable("snow", "lab-b", 0.5), theirs, stable("fog", "lab-b", 0.4)],
        ),
        finding("weather", "acdc_weather", "Stability: ...", [stable("snow", "lab-b", 0.25)]),
    ]
    assert [r["miou"] for r in rows_of(found, "weather", "Stability")] == [0.5, 0.4, 0.25]
    text = page(found, ["texture on camvid720"], "figure.svg")
    assert "| condition | published, SAM-H | camvid720, lab-b | acdc_weather, lab-b |" in text
    assert f"| snow | {PUBLISHED['snow']:.3f} | 0.500 [0.400, 0.600] | 0.250 [0.150, 0.350] |" in text
    assert "| fog | \N{EN DASH} | 0.400 [0.300, 0.500] | \N{EN DASH} |" in text
    assert "n: camvid720: 2 images, 9 prompts; acdc_weather: 2 images, 9 prompts\n" in text
    assert "Not run: texture on camvid720." in text and "<!--" not in text and "figure.svg" not in text


def test_a_pivot_leaves_no_row_out() -> None:
    rows = [{"a": i, "b": k, "v": 10 * i + k} for i in range(3) for k in range(2) if (i, k) != (1, 1)]
    lines = pivot(rows, ("a",), ("b",), lambda r: str(r["v"]))
    assert lines[2:5] == ["| 0 | 0 | 1 |", "| 1 | 10 | \N{EN DASH} |", "| 2 | 20 | 21 |"]
    assert pivot([], ("a",), ("b",), str) == ["Not run.", ""]
