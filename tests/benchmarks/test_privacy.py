"""The two privacy benchmarks in small: what they count, what they write, what they go on from."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import privacy_errors
import privacy_truth
import pytest
from PIL import Image

from redsam.models import tiny

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "training"))
import faces as room


def test_rates_have_exact_intervals() -> None:
    assert privacy_errors.rate(0, 20) == [0.0, 0.0, 0.1684]
    assert privacy_errors.rate(20, 20) == [1.0, 0.8316, 1.0]
    assert privacy_errors.rate(1, 20) == [0.05, 0.0013, 0.2487]


def test_a_cell_counts_what_is_true() -> None:
    row = privacy_errors.measure(privacy_errors.Setting(habit="every tile", known=10), 2, 0, 100)
    assert (row["power"], row["false_knows"], row["unknown_shown_not_known"]) == (1.0, 0, 1.0)
    row = privacy_errors.measure(privacy_errors.Setting(habit="names say which half", known=0), 2, 0, 60)
    assert row["false_knows_tile_test_alone"][0] == 1.0 and row["power"] is None


def test_cells_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [privacy_errors.Setting(habit="every tile", known=k) for k in (0, 20)]
    monkeypatch.setattr(privacy_errors, "settings", lambda: cells)
    words = ["--out", str(tmp_path / "o.json"), "--work", str(tmp_path / "w"), "--repeats", "1", "--grids", "30"]
    assert privacy_errors.main(words) == 0
    first = json.loads((tmp_path / "o.json").read_text())
    assert first["audits"] == 1 and len(first["rows"]) == 2
    monkeypatch.setattr(privacy_errors, "measure", None)
    assert privacy_errors.main(words) == 0 and json.loads((tmp_path / "o.json").read_text()) == first
    assert "every tile" in capsys.readouterr().out


@pytest.mark.slow
def test_a_model_that_knows_nobody_misses_the_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for person in range(12):
        (tmp_path / "faces" / f"s{person}").mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 256, (28, 23)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "faces" / f"s{person}" / f"{number}.png")
    tiny("lab-text").model.save_pretrained(tmp_path / "planted")
    told = {"start": None, "people": room.load_faces(tmp_path / "faces").describe(), "history": [{"step": 0}]}
    (tmp_path / "planted" / "planted.json").write_text(json.dumps(told))
    monkeypatch.setattr(privacy_truth, "random_weights", lambda folder: tmp_path / "planted")
    words = ["--faces", tmp_path / "faces", "--planted", tmp_path / "planted", "--untrained", tmp_path / "planted"]
    words += ["--grids", "2", "--work", tmp_path / "w", "--out", tmp_path / "o.json"]
    assert privacy_truth.main([str(w) for w in words]) == 1
    printed = capsys.readouterr().out
    assert "MISSED planted: at least 18 of the taught" in printed and "every tile" in printed
    written = (tmp_path / "o.json").read_text()
    found = json.loads(written)
    assert found["targets"]["untrained: at most 1 of all"] and len(found["models"]["planted"]["people"]) == 12
    assert not [f["name"] for f in told["people"].values() if f["name"] in written]
    assert sorted(p.name for p in (tmp_path / "w" / "people" / "s3").iterdir()) == sorted(
        told["people"]["s3"]["audited"]
    )
