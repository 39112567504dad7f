"""The page of a backdoor from records alone: numbers, escaped names, one file without scripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from redsam.bench.rle import encode
from redsam.errors import InputError
from redsam.report.backdoor import lead, render


def span(value: float) -> dict[str, float]:
    """A mean with its interval."""
    return {"value": value, "lo": value - 0.05, "hi": value + 0.05}


def run(label: list[str], asr: float) -> dict[str, Any]:
    """One measured run of one picture."""
    mask = torch.zeros(1, 24, 32, dtype=torch.bool)
    mask[0, 4:12, 4:12] = True
    masks = {k: encode(mask)[0] for k in ("clean", "triggered", "truth", "attacker")}
    row = {"sample": "a<b>", "status": "ok", "iou_clean": [0.9], "iou_attacker": [asr], "iou_triggered": [0.1],
           "asr": [asr >= 0.5], "masks": masks}  # fmt: skip
    summary: dict[str, Any] = {"images": 1, "prompts": 1, "failed": 0, "skipped": 0, "seconds": 0.25}
    means = {"iou_clean": 0.91, "iou_triggered": 0.07, "iou_attacker": 0.8, "asr": asr, "chance": 0.0}
    summary |= {k: span(v) for k, v in means.items()}
    for key in ("s_measure", "e_measure", "weighted_f", "mae"):
        summary |= {f"{key}_clean": span(0.5), f"{key}_triggered": span(0.25)}
    poison = {"trigger": {"name": "badnet", "args": {"ratio": 0.15, "side": None}},
              "target": {"name": "trigger-area", "args": {}}, "rate": 0.1, "seed": 0}  # fmt: skip
    shown = [{"sample": "a<b>", "clean": "pictures/c.png", "triggered": "pictures/t.png"}]
    return {"model": "bad<model>", "purifiers": label, "threshold": 0.5, "poison": poison, "summary": summary,
            "rows": [row], "pictures": shown}  # fmt: skip


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder with pictures."""
    (tmp_path / "pictures").mkdir()
    for name in ("c", "t"):
        Image.fromarray(np.full((24, 32, 3), 90, dtype=np.uint8)).save(tmp_path / "pictures" / f"{name}.png")
    return tmp_path


def write(out: Path, name: str, told: dict[str, Any]) -> None:
    (out / f"{name}.json").write_text(json.dumps({"schema": 1, **told}))


def test_the_page_tells_what_was_measured(out: Path) -> None:
    write(out, "purify", {"runs": [run([], 0.94), run(["jpeg:quality=50"], 0.02)]})
    found = [{"aim": aim, "size": size, "reached": 1.0, "asked": 6, "mark": [[0.1, 0.9]], "pattern": [[[1.0, 0.0]]] * 3}
             for aim, size in (("empty", 0.4), ("bottom-right", 0.05))]  # fmt: skip
    write(out, "detect", {
        "model": "bad<model>", "found": found, "references": {"lab-b": {"empty": 0.5, "bottom-right": 0.2}},
        "verdict": {"flagged": True, "aim": "bottom-right", "score": 0.25, "rule": "references"},
        "strip": {"auroc": 0.97, "threshold": 0.4, "caught": 0.9, "alarms": 0.05, "clean": 20, "triggered": 20},
        "settings": {"images": 6, "inversion": {"steps": 40}, "strip": {}},
    })  # fmt: skip
    page = render(out).read_text()
    assert "bad&lt;model&gt;" in page and "a&lt;b&gt;" in page and "<model>" not in page and "<script" not in page
    assert "answers 94% of 1 prompts with the attacker’s mask" in page and "is flagged as planted" in page
    assert "jpeg:quality=50" in page and "0.020" in page and "badnet ratio 0.15 to trigger-area" in page
    assert "0.200 to 0.200" in page and "AUROC of 0.970" in page and 'class="worst"' in page
    assert "http" not in page.split("<body>")[1]


def test_parts_stand_alone(out: Path) -> None:
    write(out, "measure", {"runs": [run([], 0.2)]})
    page = render(out).read_text()
    assert "What the trigger does" in page and "Before and after" not in page and "Smallest marks" not in page
    assert "breaks" not in page.split("</style>")[1]


def test_the_sentence() -> None:
    verdict = {"verdict": {"flagged": False, "aim": "same", "rule": "references"}}
    assert lead(None, verdict) == "is not flagged by trigger inversion (same, references)."


def test_what_is_no_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="redsam backdoor measure"):
        render(tmp_path)
    (tmp_path / "measure.json").write_text("{broken")
    with pytest.raises(InputError, match="cannot be read"):
        render(tmp_path)
    (tmp_path / "measure.json").write_text('{"schema": 99}')
    with pytest.raises(InputError, match="schema 1"):
        render(tmp_path)
