"""Jobs in processes, what went wrong in words; results between markers and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from pages import fill
from side_by_side import run_all


def work(job: Path) -> None:
    if job.name == "bad":
        raise ValueError("no such thing")
    job.write_text(f"{os.getpid()} {torch.get_num_threads()}")


def test_each_runs_in_a_process_and_one_that_fails_leaves_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    todo = [tmp_path / name for name in ("a", "bad", "b")]
    wrong = run_all(todo, work, name=lambda job: job.name, jobs=2, threads=4)
    assert wrong == ["bad (ValueError: no such thing)"]
    told = [(tmp_path / name).read_text().split() for name in ("a", "b")]
    assert all(int(process) != os.getpid() and threads == "2" for process, threads in told)
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_only_what_stands_between_the_markers_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("one\n<!-- x:begin -->\nold\n<!-- x:end -->\ntwo\n<!-- y:begin -->\nkept\n<!-- y:end -->\n")
    fill(page, "x", "new")
    assert page.read_text() == (
        "one\n<!-- x:begin -->\nnew\n<!-- x:end -->\ntwo\n<!-- y:begin -->\nkept\n<!-- y:end -->\n"
    )
    before = page.read_text()
    with pytest.raises(SystemExit, match="z:begin"):
        fill(page, "z", "new")
    assert page.read_text() == before
