"""Parquet: every prompt of every record, with what its cell asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from redsam.bench import audit
from redsam.bench.export import export
from redsam.data import open_data
from redsam.errors import MissingExtra
from redsam.models.base import Segmenter


def test_rows_are_the_prompts_of_the_records(kit: Any, tmp_path: Path, model: Segmenter) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = kit.folder(tmp_path / "data", 3)
    (folder / "photo1.png").write_bytes(b"no picture")
    audit(model, open_data(folder), out=tmp_path / "run", preset=kit.one)
    count = export(tmp_path / "run", out=tmp_path / "records.parquet")
    rows = parquet.read_table(tmp_path / "records.parquet").to_pylist()
    expected = kit.records(tmp_path / "run")
    assert len(rows) == count == sum(max(1, len(r["prompts"])) for r in expected.values())
    for row in rows:
        record = expected[row["cell"], row["sample"]]
        assert row["status"] == record["status"] and row["model"] == model.name and row["protocol"] == "point"
        if record["status"] == "ok":
            prompt = record["prompts"][row["prompt"]]
            assert all(row[key] == prompt[key] for key in ("iou_adv_gt", "iou_clean_gt", "biou_adv_clean", "kind"))
            assert row["linf"] == record["linf"] and row["eps"] == (8 / 255 if row["attack"] == "fgsm" else 0)
        else:
            assert row["prompt"] is None and row["iou_adv_gt"] is None and "photo1" in row["sample"] and row["reason"]
    export(tmp_path / "run", out=tmp_path / "masks.parquet", masks=True)
    with_masks = parquet.read_table(tmp_path / "masks.parquet").to_pylist()
    assert '"counts"' in next(r["rle_adv"] for r in with_masks if r["attack"] == "fgsm" and r["status"] == "ok")
    assert not list(tmp_path.glob(".*part"))


def test_without_the_package_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra) as caught:
        export(tmp_path, out=tmp_path / "x.parquet")
    assert "redsam[parquet]" in caught.value.hint
