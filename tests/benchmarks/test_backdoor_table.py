"""The jobs and what they cost; tables from finished jobs; one tiny run typed twice."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import backdoor_jobs
import pytest
from backdoor_jobs import CLEAN, COSTS, MODELS, Job, jobs, purifiers, read, seconds, work
from backdoor_table import MARKER, collect, main, markdown, plan, verdicts
from pages import markers

from redsam.models import tiny
from tests.backdoor.conftest import draw_world


def settings(tmp_path: Path, **more: Any) -> argparse.Namespace:
    """What the command line gives."""
    base = {"model": str(tmp_path / "sam"), "train": tmp_path / "train", "test": tmp_path / "test", "train_limit": None,
            "limit": 3, "purify_limit": 2, "epochs": 1, "lr": 1e-3, "minutes": None, "steps": 2, "count": 2,
            "purifiers": ["jpeg"], "work": tmp_path / "work", "device": "cpu", "jobs": 1, "threads": 1,
            "keep": False, "out": tmp_path / "o.json"}  # fmt: skip
    return argparse.Namespace(**base | more)


def test_every_model_is_trained_measured_and_searched() -> None:
    todo = jobs(["jpeg", "a|b"])
    assert len(MODELS) == 17 and len(CLEAN) == 5 and len(todo) == 3 * 17 + 2 * 3
    assert {j.stage for j in todo if j.kind == "train"} == {0} and {j.stage for j in todo if j.kind != "train"} == {1}
    assert len({j.file(Path("w")) for j in todo}) == len(todo)
    one = next(j for j in todo if j.name == "badsam-0.05-2")
    assert (one.rate, one.seed, one.model) == (0.05, 2, "badsam-0.05-2")
    assert [j.name for j in jobs(["jpeg"], only=["purify"])] == [f"badsam-0.1-{s}@jpeg" for s in range(3)]
    assert "jpeg" in purifiers()


def test_the_plan_adds_up(tmp_path: Path) -> None:
    args = settings(tmp_path, train_limit=80, epochs=2)
    todo = jobs([], only=["clean-0"])
    costs = [seconds(j, args) for j in todo]
    assert costs[0] == pytest.approx(COSTS["train"] * 2 * 10) and costs[1] == pytest.approx(0.15 * 3)
    assert plan(todo, args).splitlines()[-1].startswith("3 jobs, ")
    assert seconds(todo[0], settings(tmp_path, epochs=99, minutes=1.0)) == 60


def test_from_jobs_to_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_world(tmp_path / "train", 10, seed=0)
    draw_world(tmp_path / "test", 3, seed=1)
    tiny("sam").model.save_pretrained(tmp_path / "sam")
    monkeypatch.setattr(backdoor_jobs, "SEARCHES", ("empty", "same", "patch"))
    args = settings(tmp_path)
    todo = [Job(kind="train", name=n) for n in ("clean-0", "clean-1", "badsam-0.1-0")]
    todo += [Job(kind=k, name=n.name) for k in ("measure", "detect") for n in todo]
    todo.append(Job(kind="purify", name="badsam-0.1-0@jpeg"))
    for job in todo:
        work(job, args)
    stamps = {j: j.file(args.work).stat().st_mtime_ns for j in todo if j.kind == "train"}
    for job in todo[:3]:  # typed again: nothing is trained again
        work(job, args)
    assert stamps == {j: j.file(args.work).stat().st_mtime_ns for j in stamps}
    assert all(read(j, args.work) is not None for j in todo)
    found = collect(args)
    assert {k: len(v) for k, v in found.items()} == {"measure": 3, "detect": 3, "purify": 1}
    told = verdicts(found)
    assert {n: v["references"] for n, v in told.items()} == {"clean-0": 1, "clean-1": 1, "badsam-0.1-0": 2}
    text = markdown(found)
    kept = next(f["size"] for f in found["detect"]["clean-1"]["found"] if f["aim"] == "patch")
    assert f" | {kept:.3f} | " in next(line for line in text.splitlines() if line.startswith("| clean-1 | "))
    assert "| 10% | 0 | " in text and "| jpeg | badsam-0.1-0 | " in text and "1 seed |" in text
    page = tmp_path / "page.md"
    begin, end = markers(MARKER)
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    monkeypatch.setattr("sys.argv", ["x", "--collect", "--work", str(args.work), "--out", str(tmp_path / "o.json"),
                                     "--purifiers", "jpeg", "--page", str(page)])  # fmt: skip
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0 and "| jpeg |" in page.read_text() and page.read_text().endswith("after\n")


def test_what_a_lost_work_folder_held_can_stay(tmp_path: Path) -> None:
    """Only beside results of the same settings, and what was measured again counts."""
    args = settings(tmp_path, keep=True)
    told = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    before = {"settings": told, "measure": {"clean-0": {"summary": 0}, "clean-1": {"summary": 1}}}
    args.out.write_text(json.dumps(before))
    again = Job(kind="measure", name="clean-1").file(args.work)
    again.parent.mkdir(parents=True)
    again.write_text(json.dumps({"summary": 2, "rows": []}))
    assert collect(args)["measure"] == {"clean-0": {"summary": 0}, "clean-1": {"summary": 2}}
    assert collect(settings(tmp_path))["measure"] == {"clean-1": {"summary": 2}}
    with pytest.raises(SystemExit, match="measured with epochs=1, not 20"):
        collect(settings(tmp_path, keep=True, epochs=20))
    assert collect(settings(tmp_path, keep=True, out=tmp_path / "none.json"))["measure"].keys() == {"clean-1"}
