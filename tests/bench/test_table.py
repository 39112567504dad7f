"""A cell's columns: what a loop over whole records says, whatever the order of the file; and little memory."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redsam.bench.spec import Cell, JsonDict
from redsam.bench.table import COLUMNS, read_table, table

CELL = Cell(
    model={"name": "m", "family": "sam", "fingerprint": "0" * 16},
    probe={"kind": "attack", "name": "pgd", "args": {}},
    threat=None,
    data={"name": "d", "fingerprint": "1" * 16, "ids_hash": "2" * 16},
    protocol={"name": "point", "args": {}},
)


def made(count: int, *, padding: int = 0) -> list[JsonDict]:
    """Records with 0 to 2 prompts, some images failed, some recorded twice."""
    rng = np.random.default_rng(0)
    out = []
    for i in [*range(count), *range(0, count, 7)]:
        status = "failed" if rng.random() < 0.1 else "ok"
        record: JsonDict = {"cell": CELL.id, "sample": f"s{i * 37 % count}", "status": status, "reason": None}
        numbers = {"psnr": float(rng.normal(30)) if rng.random() < 0.9 else None, "ssim": float(rng.random())}
        record |= numbers | {
            "linf": 0.1,
            "l2": float(rng.random()),
            "l0": int(rng.integers(9)),
            "height": 4,
            "width": 5,
        }
        record |= {"seconds": 1.5, "peak_mb": float(rng.random()), "steps": 3, "rle": "x" * padding}
        prompts: list[JsonDict] = []
        for k in range(int(rng.integers(3)) if status == "ok" else 0):
            values = {name: float(rng.random()) if rng.random() < 0.9 else None for name in COLUMNS}
            prompts.append({"kind": ("point", "box")[k], "gone": "left" if rng.random() < 0.1 else None} | values)
        out.append(record | {"prompts": prompts})
    return out


def test_columns_are_what_a_loop_over_the_last_records_says() -> None:
    records = made(60)
    got = table(CELL, records)
    last = {r["sample"]: r for r in records}
    good = [last[name] for name in sorted(last) if last[name]["status"] == "ok"]
    assert got.samples == tuple(r["sample"] for r in good) and len(last) == 60
    pairs: list[tuple[int, Any]] = [(i, p) for i, r in enumerate(good) for p in r["prompts"] if not p["gone"]]
    assert got.owner.tolist() == [i for i, _ in pairs] and got.kinds.tolist() == [p["kind"] for _, p in pairs]
    for name in COLUMNS:
        assert np.array_equal(
            got.columns[name], [np.nan if p[name] is None else p[name] for _, p in pairs], equal_nan=True
        )
    assert got.gone == tuple(p["kind"] for r in good for p in r["prompts"] if p["gone"])
    assert np.array_equal(got.psnr, [np.nan if r["psnr"] is None else r["psnr"] for r in good], equal_nan=True)
    spent = got.costs()
    looks = [r["psnr"] for r in good if r["psnr"] is not None]
    assert spent["psnr"] == sum(looks) / len(looks) and spent["seconds"] == 1.5 * len(good)
    assert spent["l0_max"] == max(r["l0"] for r in good) and isinstance(spent["l0_max"], int)
    assert spent["mse"] == pytest.approx(np.mean([r["l2"] ** 2 / 60 for r in good]))
    assert spent["queries_mean"] is None and spent["steps_mean"] == 3
    assert [f["sample"] for f in got.failures] == sorted(n for n, r in last.items() if r["status"] == "failed")


def test_a_cell_takes_the_memory_of_its_numbers_not_of_its_records(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in made(500, padding=20_000)))
    assert path.stat().st_size > 10e6
    tracemalloc.start()
    got = read_table(CELL, path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(got.samples) > 400 and peak < 1.5e6
