"""merge: the parts of a run join to the whole; whatever contradicts is one line, and nothing is written then."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from redsam.bench import RunStore, audit, read_records, summarise
from redsam.bench.merge import merge
from redsam.bench.spec import Cell, JsonDict
from redsam.bench.store import CellStore
from redsam.data import open_data
from redsam.errors import InputError
from redsam.models.base import Segmenter


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, kit: Any, model: Segmenter, folder: Path) -> Path:
    out = tmp_path_factory.mktemp("merge") / "whole"
    audit(model, open_data(folder), out=out, preset=kit.one)
    return out


def part(whole: Path, out: Path, samples: tuple[str, ...], cells: int = 2) -> Path:
    """A copy with some images of some cells, unfinished."""
    shutil.copytree(whole, out)
    for i, store in enumerate(RunStore(out).cells()):
        if i >= cells:
            shutil.rmtree(store.folder)
            continue
        lines = [r for r in read_records(store.samples) if r["sample"] in samples]
        store.samples.write_text("".join(json.dumps(r) + "\n" for r in lines))
        (store.folder / "DONE").unlink()
    (out / "summary.json").unlink()
    return out


def rewrite(run: Path, change: JsonDict) -> Path:
    """Change the first record of the first cell."""
    store = RunStore(run).cells()[0]
    records = read_records(store.samples)
    records[0] |= change
    store.samples.write_text("".join(json.dumps(r) + "\n" for r in records))
    return run


def files(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_parts_join_to_the_whole(kit: Any, tmp_path: Path, whole: Path) -> None:
    """Some images here, others there, one image twice with other times."""
    a = rewrite(part(whole, tmp_path / "a", ("photo0", "photo1", "photo2")), {"seconds": 99.0})
    b = part(whole, tmp_path / "b", ("photo0", "photo3", "photo4"))
    with (b / "records" / os.listdir(b / "records")[0] / "samples.jsonl").open("a") as file:
        file.write('{"schema": 1, "sample": "torn')
    before = files(a), files(b)
    found = merge([a, b], out=tmp_path / "all")
    assert (found.cells, found.done, found.records, found.added) == (2, 2, 10, 10)
    assert kit.same(tmp_path / "all") == kit.same(whole)
    rows = [{k: v for k, v in r.items() if k not in ("seconds", "peak_mb")} for r in summarise(tmp_path / "all").cells]
    assert rows == [{k: v for k, v in r.items() if k not in ("seconds", "peak_mb")} for r in summarise(whole).cells]
    for record in kit.records(tmp_path / "all", attack="fgsm").values():
        assert (tmp_path / "all" / "records" / record["cell"] / record["image"]).is_file()
        assert (tmp_path / "all" / record["clean_image"]).is_file()
    assert (files(a), files(b)) == before, "the runs stay as they are"
    again = merge([a, b], out=tmp_path / "all")
    assert again.added == 0 and again.records == 10


def test_killed_on_the_way_it_goes_on(kit: Any, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (
        part(whole, tmp_path / "a", ("photo0", "photo1")),
        part(whole, tmp_path / "b", ("photo2", "photo3", "photo4")),
    )
    real, calls = CellStore.extend, 0

    def dies(self: CellStore, lines: list[bytes]) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:  # in the middle of a line
            real(self, [b"".join(lines)[:-40]])
            raise KeyboardInterrupt
        real(self, lines)

    monkeypatch.setattr(CellStore, "extend", dies)
    with pytest.raises(KeyboardInterrupt):
        merge([a, b], out=tmp_path / "all")
    monkeypatch.undo()
    merge([a, b], out=tmp_path / "all")
    assert kit.same(tmp_path / "all") == kit.same(whole)


def test_a_run_can_be_the_target(kit: Any, tmp_path: Path, whole: Path) -> None:
    a, b = part(whole, tmp_path / "a", ("photo0",)), part(whole, tmp_path / "b", ("photo1",), cells=1)
    found = merge([a, b], out=a)
    assert found.added == 1 and found.done == 0 and len(kit.same(a)) == 3


def test_contradictions_are_one_line_and_nothing_is_written(tmp_path: Path, whole: Path) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(whole, tmp_path / name))

    store = RunStore(whole).cells()[0]
    other = copy("weights")
    spec = json.loads((other / "records" / store.cell.id / "spec.json").read_text())
    changed = Cell.from_spec(spec | {"model": {**spec["model"], "fingerprint": "f" * 16}})
    (other / "records" / store.cell.id).rename(other / "records" / changed.id)
    (other / "records" / changed.id / "spec.json").write_text(json.dumps(changed.spec()))
    for line in (other / "records" / changed.id / "samples.jsonl",):
        line.write_text(line.read_text().replace(store.cell.id, changed.id))
    alien = copy("alien")
    (alien / "records" / store.cell.id).rename(alien / "records" / ("0" * 16))
    schema = copy("schema")
    text = (schema / "records" / store.cell.id / "spec.json").read_text()
    (schema / "records" / store.cell.id / "spec.json").write_text(text.replace('"schema": 1', '"schema": 2'))
    cases = (
        (rewrite(copy("numbers"), {"linf": 0.5}), "disagree on image 'photo0'"),
        (rewrite(copy("failed"), {"status": "failed"}), "disagree on image 'photo0'"),
        (other, "has other weights in"),
        (alien, "does not hold the cell that its name says"),
        (schema, "schema 2"),
    )
    for wrong, said in cases:
        with pytest.raises(InputError, match=said) as caught:
            merge([whole, wrong], out=tmp_path / "all")
        assert "\n" not in str(caught.value) and not (tmp_path / "all" / "records").exists()
    with pytest.raises(InputError, match="holds no records"):
        merge([whole, tmp_path], out=tmp_path / "all")


def test_clean_images_of_one_name_keep_apart(kit: Any, tmp_path: Path, model: Segmenter) -> None:
    """Two machines, two data sets, one name: both pictures stay, and records find theirs."""
    runs = []
    for name, size in (("one", (48, 64)), ("two", (40, 64))):
        data = open_data(kit.folder(tmp_path / name, 1, sizes=(size,)))
        audit(model, data, out=tmp_path / f"{name}-run", preset=kit.one)
        runs.append(tmp_path / f"{name}-run")
    merge(runs, out=tmp_path / "all")
    found = kit.records(tmp_path / "all").values()
    assert len({r["clean_image"] for r in found}) == 2 and len(found) == 4
    from PIL import Image

    for record in found:
        with Image.open(tmp_path / "all" / record["clean_image"]) as image:
            assert image.size == (record["width"], record["height"])
