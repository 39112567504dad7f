"""The two benchmarks of scale at a small size: what they make is a run, and what they tell is whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_made_up_runs_merge_and_aggregate(tmp_path: Path) -> None:
    import store_size

    from redsam.bench import summarise
    from redsam.bench.merge import merge

    runs = [tmp_path / f"run-{i}" for i in range(2)]
    for i, run in enumerate(runs):
        store_size.make(run, i, cells=4, images=30, pictures=3)
    found = merge(runs, out=tmp_path / "all")
    assert (found.cells, found.done, found.records) == (8, 8, 240)
    rows = summarise(tmp_path / "all").cells
    assert {r["model"] for r in rows} == {"model-0", "model-1"} and all(r["n_images"] == 30 for r in rows)
    assert all(0.4 < r["miou_adv"] < 0.6 for r in rows if r["attack"] == "pgd"), "drawn evenly from 0 to 1"


def test_one_step_tells_its_time_and_memory(tmp_path: Path) -> None:
    import store_size

    store_size.make(tmp_path / "run", 0, cells=2, images=5, pictures=1)
    told = store_size.step("merge", [str(tmp_path / "run")], str(tmp_path / "all"))
    assert told["seconds"] > 0 and 0.02 < told["gigabytes"] < 2


@pytest.mark.slow
def test_scaling_runs_small(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    command = [sys.executable, str(ROOT / "benchmarks" / "ray_scaling.py"), "--images", "2", "--steps", "1"]
    command += ["--workers", "1", "2", "--rounds", "1", "--out", str(tmp_path / "x.json")]
    subprocess.run(command, check=True, timeout=600)
    told = json.loads((tmp_path / "x.json").read_text())
    assert told["equal_records"] and [a["workers"] for a in told["arms"]] == [1, 2]
