"""What memory.py says is what the system says: peaks of known work, limits of made-up containers, real refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from redsam.bench.memory import container_rooms, held, out_of_memory, peak_bytes, reset_peak, room

CPU = torch.device("cpu")
MB = 2**20


def test_the_cpu_allocators_own_refusal_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**48)  # a petabyte: no address space holds it
    assert out_of_memory(caught.value)
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory")) and out_of_memory(MemoryError())
    assert not out_of_memory(RuntimeError("the size of tensor a must match")) and not out_of_memory(ValueError("x"))


def test_a_peak_is_that_of_the_work_since_it_was_reset() -> None:
    if not reset_peak(CPU):
        pytest.skip("this system does not start a peak anew")
    before = held(CPU)
    assert before is not None
    np.ones(300 * MB, dtype=np.uint8).sum()  # touched and given back
    peak = peak_bytes(CPU)
    assert peak is not None and 280 * MB < peak - before < 400 * MB
    reset_peak(CPU)
    after, now = peak_bytes(CPU), held(CPU)
    assert after is not None and now is not None and after < now + 50 * MB


def test_what_is_held_is_what_psutil_counts() -> None:
    psutil = pytest.importorskip("psutil")
    now = held(CPU)
    if now is None:
        pytest.skip("this system does not tell")
    assert abs(now - psutil.Process().memory_info().rss) < 20 * MB


def test_there_is_not_more_room_than_the_machine_has() -> None:
    psutil = pytest.importorskip("psutil")
    free = room(CPU)
    if free is None:
        pytest.skip("this system does not tell")
    assert 0 <= free < psutil.virtual_memory().total


def group(folder: Path, most: str, used: int, files: int, *, old: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if old else ("memory.max", "memory.current")
    (folder / names[0]).write_text(f"{most}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{'total_' if old else ''}inactive_file {files}\n")


def test_every_container_above_counts(tmp_path: Path) -> None:
    """Control groups 2: the group itself has no limit, the one above leaves 1000 - 700 + 100, the one above that 50."""
    told, mount = tmp_path / "told", tmp_path / "mount"
    told.write_text("0::/outer/inner/own\n")
    group(mount / "outer" / "inner" / "own", "max", 10, 0)
    group(mount / "outer" / "inner", "1000", 700, 100)
    group(mount / "outer", "800", 760, 10)
    mount.joinpath("cgroup.procs").touch()  # the root has no limit file
    assert list(container_rooms(told, mount)) == [400, 50]


def test_first_control_groups_inside_a_container(tmp_path: Path) -> None:
    """Control groups 1: the path is that of the host, the mount holds the container's own files."""
    told, mount = tmp_path / "told", tmp_path / "mount"
    told.write_text("9:name=systemd:/x\n4:cpu,memory:/docker/0123\n0::/\n")
    group(mount / "memory", "2000", 500, 30, old=True)
    assert list(container_rooms(told, mount)) == [1530]
    assert list(container_rooms(tmp_path / "nowhere", mount)) == []
