"""The jobs and their cost by hand; one tiny run from jobs to tables and claims, typed twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attack_jobs
import numpy as np
import pytest
from attack_jobs import QUERIES, SETS, Job, bank, carry_out, gradients, jobs
from attack_table import MARKER, main, markdown, plan, rows
from claims import BENCHMARK, CLAIMS, judge
from evidence import Field, find
from pages import markers
from PIL import Image

from redsam.bench import executor, read_records
from redsam.bench.evaluate import comparable
from redsam.errors import InputError
from redsam.models import tiny
from redsam.models.base import Segmenter
from redsam.studies.rga_transfer import RgaTransfer


def test_every_attack_runs_on_every_set_and_every_claim_has_its_run() -> None:
    todo = jobs(25, 8)
    table = [j for j in todo if j.run == "rga-transfer"]
    assert {(j.name, j.part) for j in table} == {(a, s) for a in RgaTransfer().attacks for s in SETS}
    assert {j.limit for j in table} == {25} and len({j.folder(Path("w")) for j in todo}) == len(todo)
    claims = {j.name: j.limit for j in todo if j.run not in ("rga-transfer", "clean")}
    others = ("figa-sweep", "rga-ablation", "cross-prompt-matrix")
    assert claims == dict.fromkeys(others, 8) | dict.fromkeys(QUERIES, 5)
    assert [j.limit for j in jobs(25, 3) if j.name in QUERIES] == [3] * 6
    assert [j.name for j in jobs(25, 10, only=["pgd"])] == ["clean", "clean", "pgd", "pgd"]


def test_what_claims_read_comes_before_the_rest() -> None:
    names = [(j.run, j.name) for j in jobs(25, 8)]
    assert names[:2] == [("clean", "clean")] * 2
    order = [name for _, name in names]
    assert max(order.index(a) for a in ("rga", *BENCHMARK, *QUERIES)) < min(order.index(a) for a in ("pgd", "s-ra"))
    assert set(order[-6:]) == {"vmifgsm", "sinifgsm", "t-ra"}


@pytest.mark.parametrize(
    ("name", "count"),
    [("pgd", 40), ("vmifgsm", 40 * 3), ("sinifgsm", 40 * 2), ("t-ra", 40), ("uad", 5 * 40 + 40), ("rga", 3 * 40),
     ("pata++", 40), ("cross-prompt", 40), ("simba", 0), ("ebad", 20 * 5)],
)  # fmt: skip
def test_gradients_are_what_the_registry_says(name: str, count: int) -> None:
    assert gradients(name) == count


def test_the_plan_adds_up() -> None:
    todo = jobs(2, 1, only=["pgd", "simba", "figa-sweep"])
    text = plan(todo).splitlines()
    assert len(text) == 8 + 2 and text[-1] == (
        f"8 jobs: {2 * 2 * 40 + 2 * 1 * (6 * 100 + 25)} gradients and {2 * QUERIES['simba']} forwards at most"
    )
    expected = ["clean", "figa-sweep", "simba", "pgd"]
    assert [line.split()[1] for line in text[1:-1]] == [name for name in expected for _ in SETS]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One image with one object in each of two sets, the same name in both."""
    rng = np.random.default_rng(0)
    for part in SETS:
        folder = tmp_path / "data" / part
        folder.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 255, size=(40, 48, 3), dtype=np.uint8)).save(folder / "a.png")
        mask = np.zeros((40, 48), dtype=np.uint8)
        mask[5:30, 5:40] = 1
        Image.fromarray(mask).save(folder / "a_mask.png")
    return tmp_path / "data"


def test_from_jobs_to_tables(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, victim = tiny("sam"), tiny("sam", seed=1)
    source.name, victim.name = "lab-b", "somewhere/lab-l"
    monkeypatch.setattr(attack_jobs, "QUERIES", {"simba": 2, "ebad": 2})
    work = tmp_path / "work"
    todo = [Job(run="clean", name="clean", part=part, limit=1) for part in SETS]
    todo += [Job(run="rga-transfer", name="fgsm", part=part, limit=1) for part in SETS]
    todo += [Job(run="score", name="simba", part=SETS[0], limit=1)]
    for job in [*todo, todo[0]]:  # typed again, nothing is left to do and nothing is counted twice
        carry_out(job, source, [victim], data=data, work=work)
    found = [f for f in bank(work) if f.run != "clean"]
    assert {(f.run, f.attack, f.victim) for f in found} == {
        ("rga-transfer", a, v) for a in ("clean", "fgsm") for v in ("lab-b", "lab-l")
    } | {("score", a, "lab-b") for a in ("clean", "simba")}
    assert all([r["sample"] for r in f.records] == [f"{s}/a" for s in SETS] for f in found if f.run == "rga-transfer")
    table = rows(found)
    assert len(table) == 2 * 2 * 3
    row = next(r for r in table if (r["attack"], r["victim"], r["prompt"]) == ("fgsm", "lab-l", "box"))
    boxes = [p["iou_adv_gt"] for r in find(found, run="rga-transfer", attack="fgsm", victim="lab-l")
             for p in r["prompts"] if p["kind"] == "box"]  # fmt: skip
    assert (row["n_prompts"], row["n_images"], row["n_failed"]) == (len(boxes), 2, 0) == (6, 2, 0)
    assert (row["miou"], row["sd"]) == (pytest.approx(np.mean(boxes)), pytest.approx(np.std(boxes)))
    assert row["asr50"] == np.mean(np.array(boxes) <= 0.5) and row["miou_lo"] <= row["miou"] <= row["miou_hi"]
    claims = [judge(claim, found) for claim in CLAIMS]
    text = markdown(table, claims, ["uad on bsds_test (no)"])
    assert "| fgsm | box | " in text and "| attack | prompt | lab-b | lab-l | n |" in text
    assert "Not run: uad on bsds_test (no)." in text and text.count("| undecided |") == len(CLAIMS)


def test_clean_answers_are_made_once_and_are_those_of_a_job_alone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, victim = tiny("sam"), tiny("sam", seed=1)
    job = Job(run="rga-transfer", name="fgsm", part=SETS[0], limit=1)
    carry_out(job, source, [victim], data=data, work=tmp_path / "alone")
    carry_out(Job(run="clean", name="clean", part=SETS[0], limit=1), source, [victim], data=data, work=tmp_path / "two")
    asked: list[int] = []
    predict = executor.predict

    def counting(segmenter: Segmenter, cell: Any, samples: Any) -> Any:
        asked.append(1)
        return predict(segmenter, cell, samples)

    monkeypatch.setattr(executor, "predict", counting)
    carry_out(job, source, [victim], data=data, work=tmp_path / "two")
    # The source's clean answer to what the attack aims at, its attacked one, and both models' to the test prompts.
    assert len(asked) == 4
    alone, two = (
        {
            path.parent.name: [comparable(r) for r in read_records(path)]
            for path in (tmp_path / name / "rga-transfer").glob("*/*/records/*/samples.jsonl")
        }
        for name in ("alone", "two")
    )
    assert alone == two and len(two) == 5


def test_ebad_alone_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no surrogate"):
        carry_out(Job(run="score", name="ebad", part=SETS[0], limit=1), tiny("sam"), [], data=data, work=tmp_path)


def test_a_failed_image_is_counted_and_not_averaged() -> None:
    prompt = {"kind": "point", "iou_clean_gt": 0.5, "iou_adv_gt": 0.25, "iou_adv_clean": 0.5, "l0": None}
    records = (
        {"sample": "s/a", "status": "ok", "prompts": [prompt]},
        {"sample": "s/b", "status": "failed", "prompts": []},
    )
    found = rows([Field(run="rga-transfer", attack="pgd", victim="lab-b", records=records)])
    assert [(r["prompt"], r["miou"], r["n_images"], r["n_failed"]) for r in found] == [
        ("point", 0.25, 1, 1), ("all", 0.25, 1, 1)
    ]  # fmt: skip
    assert found[0]["miou_lo"] is None and "| pgd | point | 0.25 \N{PLUS-MINUS SIGN} 0.00, 100% / 0% |" in markdown(
        found, [], []
    )


def test_collecting_writes_between_the_markers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    begin, end = markers(MARKER)
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    command = [
        "x",
        "--collect",
        "--work",
        str(tmp_path / "none"),
        "--out",
        str(tmp_path / "o.json"),
        "--page",
        str(page),
    ]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    text = page.read_text()
    assert text.startswith(f"before\n{begin}\n") and text.endswith(f"{end}\nafter\n") and "old" not in text
