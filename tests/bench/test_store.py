"""The store: torn lines, pictures before records, one writer, and disks that take no more."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from redsam.bench import RunStore
from redsam.bench.files import StorageError, png_bytes, safe_name, write_bytes, write_json
from redsam.bench.spec import Cell
from redsam.bench.store import read_records
from redsam.data import read_image
from redsam.errors import InputError
from redsam.types import to_uint8

CELL = Cell(
    model={"name": "m", "family": "sam", "fingerprint": "0" * 16},
    probe={"kind": "none", "name": "none", "args": {}},
    threat=None,
    data={"name": "d", "fingerprint": "1" * 16, "ids_hash": "2" * 16},
    protocol={"name": "point", "args": {}},
)


def test_records_survive_and_a_torn_line_is_cut_away(tmp_path: Path) -> None:
    store = RunStore(tmp_path).cell(CELL)
    assert store.open({"torch": "x"}) == []
    store.append({"sample": "a"})
    store.append({"sample": "b"})
    store.close()
    whole = store.samples.read_bytes()
    for torn in (b'{"sample": "c", "x', b'{"sample": "c"}', b"\0\0\0\n"):  # killed while writing; not even a line end
        store.samples.write_bytes(whole + torn)
        assert [r["sample"] for r in read_records(store.samples)] == ["a", "b"]
        again = RunStore(tmp_path).cell(CELL)
        assert again.open({}) == ["a", "b"]
        again.append({"sample": "c"})
        again.close()
        assert [r["sample"] for r in read_records(store.samples)] == ["a", "b", "c"]
    assert json.loads((store.folder / "env.json").read_text()) == {"torch": "x"}


def test_a_broken_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_bytes(b'{"sample": "a"}\nrubbish\n{"sample": "b"}\n')
    with pytest.raises(InputError, match="line 2: broken record"):
        read_records(path)


def test_png_is_lossless_and_whole(tmp_path: Path) -> None:
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    write_bytes(tmp_path / "a" / "x.png", png_bytes(image))
    assert torch.equal(to_uint8(read_image(tmp_path / "a" / "x.png")), image)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["x.png"]


def test_clean_images_of_one_name_and_different_content_do_not_mix(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    a, b = torch.zeros(3, 4, 4, dtype=torch.uint8), torch.ones(3, 4, 4, dtype=torch.uint8)
    assert store.put_clean("x", a) == store.put_clean("x", a) == "images/x.png"
    other = store.put_clean("x", b)
    assert other != "images/x.png" and torch.equal(to_uint8(read_image(tmp_path / other)), b)


def test_file_names_are_safe_and_unique() -> None:
    assert safe_name("NAME_01.png") == "NAME_01.png"
    odd = ["a/b", "a_b", "a\\b", "../x", ".hidden", "é", "x" * 300, "x" * 301, ""]
    made = [safe_name(name) for name in odd]
    assert len(set(made)) == len(odd)
    assert all(len(n) < 130 and "/" not in n and not n.startswith(".") for n in made)


def test_one_writer_at_a_time_and_a_dead_one_leaves_no_lock(tmp_path: Path) -> None:
    hold = "import sys, time\nfrom redsam.bench import RunStore\n"
    hold += "with RunStore(sys.argv[1]).lock():\n print('held', flush=True)\n time.sleep(60)\n"
    child = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None and child.stdout.readline() == "held\n"
        with pytest.raises(StorageError, match=f"written by process {child.pid}"), RunStore(tmp_path).lock():
            pass
    finally:
        child.kill()
        child.wait()
    assert (tmp_path / "lock").read_text().strip() == str(child.pid)  # what a killed run leaves
    with RunStore(tmp_path).lock():
        assert (tmp_path / "lock").read_text().strip() == str(os.getpid())
    with RunStore(tmp_path).lock():
        pass


def test_a_full_disk_is_one_line_and_keeps_what_was_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RunStore(tmp_path).cell(CELL)
    store.open({})
    store.append({"sample": "a"})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="disk is full") as caught:
        store.append({"sample": "b"})
    assert "goes on" in caught.value.hint
    with pytest.raises(StorageError, match="disk is full"):
        write_json(tmp_path / "summary.json", {})
    assert not (tmp_path / "summary.json").exists() and not list(tmp_path.glob(".*part"))
    monkeypatch.undo()
    store.close()
    assert read_records(store.samples)[0] == {"sample": "a"}


def test_a_read_only_folder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"), RunStore(tmp_path / "file" / "out").lock():
        pass
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if os.geteuid() == 0:  # root writes everywhere: let the system say no

        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StorageError, match="cannot be written") as caught, RunStore(closed / "out").lock():
        pass
    assert "--out" in caught.value.hint


def test_a_folder_without_records_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no records") as caught:
        RunStore(tmp_path).cells()
    assert "redsam audit" in caught.value.hint
