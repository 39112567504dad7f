"""`redsam audit` and `redsam report`: bad files inside a run, interruption, a disk that fills up, the report again."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from redsam.cli.audit import Bar
from tests.cli.conftest import Ran
from tests.cli.test_bad_inputs import on_file_system

Audit = Callable[..., Ran]


def photograph(folder: Path, name: str, seed: int, *, mask: tuple[int, int] | None = (64, 48)) -> None:
    """NAME.png of 64 x 48 with NAME_mask.png of one object."""
    noise = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / f"{name}.png")
    if mask is not None:
        ids = np.zeros(mask[::-1], dtype=np.uint8)
        ids[10:30, 10:40] = 1
        Image.fromarray(ids).save(folder / f"{name}_mask.png")


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """Three photographs with a mask each."""
    folder = tmp_path / "good"
    folder.mkdir()
    for i in range(3):
        photograph(folder, f"photo{i}", i)
    return folder


@pytest.fixture
def audit(redsam: Callable[..., Ran], tiny_folder: Path, tmp_path: Path) -> Audit:
    """`audit(data)`: the quick preset on the random model into tmp_path/out."""

    def run(data: Path, *more: object) -> Ran:
        return redsam("audit", tiny_folder, "--data", data, "--out", tmp_path / "out", *more)

    return run


def records(out: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Records by cell and sample, without what depends on the clock."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for path in sorted(out.glob("records/*/samples.jsonl")):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            key = (record["cell"], record["sample"])
            assert key not in found, "a record is there twice"
            found[key] = {k: v for k, v in record.items() if k not in ("seconds", "peak_mb")}
    return found


def test_as_many_images_at_a_time_as_memory_holds(audit: Audit, good: Path, tmp_path: Path) -> None:
    ran = audit(good, "--batch-size", "auto", "--memory", "0.4")
    assert ran.code == 0, ran.err
    told = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("records/*/env.json")]
    assert told and all(one["batch"]["asked"] == "auto" and one["batch"]["memory"] == 0.4 for one in told)
    if sys.platform.startswith("linux"):
        assert any(one["batch"]["budget_mb"] for one in told), "one image, then two, then there is a line"
    assert all("--batch-size auto --memory 0.4" in one["command"] for one in told)
    assert all(one["status"] == "ok" and one["batch"] in (1, 2) for one in records(tmp_path / "out").values())


@pytest.mark.parametrize(
    "more, said",
    [
        (("--batch-size", "0"), "'0' is no batch size"),
        (("--batch-size", "all"), "'all' is no batch size"),
        (("--batch-size", "2", "--memory", "0.5"), "A fixed batch size takes the memory it takes"),
        (("--batch-size", "auto", "--memory", "7"), "'7' is no share of the memory"),
    ],
)
def test_a_batch_that_is_none(
    refused: Callable[..., str], tiny_folder: Path, good: Path, tmp_path: Path, more: tuple[str, ...], said: str
) -> None:
    assert said in refused("audit", tiny_folder, "--data", good, "--out", tmp_path / "out", *more)
    assert not (tmp_path / "out").exists()


def test_bad_files_inside_a_run_are_failed_records(audit: Audit, good: Path, tmp_path: Path) -> None:
    photograph(good, "wrongsize", 7, mask=(30, 30))
    Image.new("RGB", (1, 1)).save(good / "dot.png")
    Image.new("L", (1, 1), 1).save(good / "dot_mask.png")
    photograph(good, "cut", 8)
    whole = (good / "cut.png").read_bytes()
    (good / "cut.png").write_bytes(whole[: len(whole) // 2])
    photograph(good, "nothing", 9)
    Image.new("L", (64, 48)).save(good / "nothing_mask.png")
    ran = audit(good, "--limit", 7)
    assert ran.code == 0, ran.err
    assert "Traceback" not in ran.err
    found = records(tmp_path / "out")
    cells = {cell for cell, _ in found}
    assert len(cells) == 6
    for cell in cells:
        state = {sample: record["status"] for (c, sample), record in found.items() if c == cell}
        assert state == {
            "photo0": "ok", "photo1": "ok", "photo2": "ok",
            "wrongsize": "failed", "dot": "failed", "cut": "failed", "nothing": "skipped",
        }  # fmt: skip
        assert "30 x 30" in found[cell, "wrongsize"]["reason"]
        assert "1 x 1" in found[cell, "dot"]["reason"]
        assert "truncated" in found[cell, "cut"]["reason"]
        assert found[cell, "nothing"]["reason"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert {row["n_images"] for row in summary["cells"]} == {3}
    assert {f["sample"] for f in summary["failures"]} >= {"wrongsize", "dot", "cut"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "wrongsize" in page and "30 x 30" in page


def test_the_verdict_and_the_report_path_are_printed_last(audit: Audit, good: Path, tmp_path: Path) -> None:
    ran = audit(good, "--limit", 2)
    assert ran.code == 0, ran.err
    *_, verdict, path = ran.out.strip().splitlines()
    assert "mIoU" in verdict
    assert Path(path) == tmp_path / "out" / "report.html"
    assert Path(path).is_file()
    assert len({sample for _, sample in records(tmp_path / "out")}) == 2


def test_apart_gives_every_prompt_an_image_of_its_own(audit: Audit, good: Path, tmp_path: Path) -> None:
    ran = audit(good, "--limit", 1, "--apart")
    assert ran.code == 0, ran.err
    attacked = [r for r in records(tmp_path / "out").values() if "linf" in (r["prompts"] or [{}])[0]]
    assert len(attacked) == 4
    assert all(r["image"] is None and r["prompts"][0]["image"].endswith(".p0.png") for r in attacked)
    assert "--apart" in (tmp_path / "out" / "report.html").read_text()


def test_interrupted_and_typed_again_it_goes_on(
    audit: Audit, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0
    real = Bar.image

    def interrupt(self: Bar, record: Mapping[str, Any]) -> None:
        nonlocal written
        written += 1
        real(self, record)
        if written == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Bar, "image", interrupt)
    ran = audit(good)
    assert ran.code == 130
    assert "the same command goes on from there" in ran.err.splitlines()[-1]
    assert not (tmp_path / "out" / "report.html").exists()
    kept = records(tmp_path / "out")
    assert len(kept) == 5

    monkeypatch.setattr(Bar, "image", real)
    again = audit(good)
    assert again.code == 0, again.err
    assert "going on: 1 of 6 cells" in again.err
    assert "going on: 2 of 3 images" in again.err
    whole = records(tmp_path / "out")
    assert {key: whole[key] for key in kept} == kept
    shutil.rmtree(tmp_path / "out")
    assert audit(good).code == 0
    assert records(tmp_path / "out") == whole


def test_the_report_again_from_the_records_alone(
    redsam: Callable[..., Ran], audit: Audit, good: Path, tmp_path: Path
) -> None:
    assert audit(good).code == 0
    out = tmp_path / "out"
    shutil.rmtree(good)
    first = {name: (out / name).read_text() for name in ("report.html", "summary.json")}
    for name in (*first, "junit.xml"):
        (out / name).unlink()
    ran = redsam("report", out)
    assert (ran.code, ran.out) == (0, f"{out / 'report.html'}\n")
    assert (out / "junit.xml").is_file()
    assert (out / "summary.json").read_text() == first["summary.json"]
    assert len((out / "report.html").read_text()) == pytest.approx(len(first["report.html"]), rel=0.01)


def test_one_folder_one_writer(audit: Audit, good: Path, tmp_path: Path) -> None:
    from redsam.bench import RunStore

    with RunStore(tmp_path / "out").lock():
        ran = audit(good)
    assert ran.code == 2
    assert "is being written by process" in ran.err
    assert audit(good).code == 0


def test_a_disk_that_fills_up_in_the_middle(tiny_folder: Path, good: Path, tmp_path: Path) -> None:
    out, first, second = tmp_path / "out", tmp_path / "first", tmp_path / "second"
    out.mkdir()
    script = f"""
        "$@" && exit 3; code=$?; cp -r "{out}" "{first}"
        mount -o remount,size=64m "{out}" || exit 77
        "$@" || exit 4; cp -r "{out}" "{second}"; exit $code"""
    line = ["audit", str(tiny_folder), "--data", str(good), "--out", str(out)]
    done = on_file_system("size=120k", out, line, script=script)
    assert done.returncode == 2, done
    assert done.stderr.count("redsam: ") == 1
    assert "redsam: The disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    kept, whole = records(first), records(second)
    assert 0 < len(kept) < 18 == len(whole)
    assert {key: whole[key] for key in kept} == kept


def test_weather_is_asked_like_an_attack(audit: Audit, good: Path, tmp_path: Path) -> None:
    ran = audit(good, "--preset", "weather", "--limit", 1)
    assert ran.code == 0, ran.err
    found = records(tmp_path / "out")
    assert len(found) == 2 * (1 + 10 + 2 * 3) and {r["status"] for r in found.values()} == {"ok"}
    assert "severity 3" in (tmp_path / "out" / "report.html").read_text()
    rows = json.loads((tmp_path / "out" / "summary.json").read_text())["cells"]
    assert {r["severity"] for r in rows if r["attack"] == "night+drops"} == {1, 3, 5}
