"""The jobs and their cost by hand; one tiny run from jobs to tables and claims, typed twice."""

from __future__ import annotations

from pathlib import Path

import attack_jobs
import numpy as np
import pytest
from attack_jobs import QUERIES, SETS, Job, bank, carry_out, gradients, jobs
from attack_table import BEGIN, END, main, markdown, plan, rows
from claims import CLAIMS, judge
from evidence import Field, find
from PIL import Image

from redsam.errors import InputError
from redsam.models import tiny
from redsam.studies.rga_transfer import RgaTransfer


def test_every_attack_runs_on_every_set_and_every_claim_has_its_run() -> None:
    todo = jobs(25, 10)
    assert {(j.name, j.part) for j in todo if j.run == "rga-transfer"} == {
        (a, s) for a in RgaTransfer().attacks for s in SETS
    }
    assert {j.limit for j in todo if j.run == "rga-transfer"} == {25}
    claims = [j for j in todo if j.run != "rga-transfer"]
    assert {j.limit for j in claims} == {10} and len({j.folder(Path("w")) for j in todo}) == len(todo)
    assert {j.name for j in claims} == {"figa-sweep", "rga-ablation", "cross-prompt-matrix", *QUERIES}
    assert [j.name for j in jobs(25, 10, only=["pgd"])] == ["pgd", "pgd"]


@pytest.mark.parametrize(
    ("name", "count"),
    [("pgd", 40), ("vmifgsm", 40 * 6), ("sinifgsm", 40 * 5), ("t-ra", 40 * 5), ("uad", 5 * 40 + 40), ("rga", 3 * 40),
     ("pata++", 40), ("cross-prompt", 40), ("simba", 0), ("ebad", 20 * 5)],
)  # fmt: skip
def test_gradients_are_what_the_registry_says(name: str, count: int) -> None:
    assert gradients(name) == count


def test_the_plan_adds_up() -> None:
    todo = jobs(2, 1, only=["pgd", "simba", "figa-sweep"])
    text = plan(todo).splitlines()
    assert len(text) == 6 + 2 and text[-1] == (
        f"6 jobs: {2 * 2 * 40 + 2 * 1 * 5 * 25} gradients and {2 * QUERIES['simba']} forwards at most"
    )
    assert [line.split()[1] for line in text[1:-1]] == ["simba", "simba", "figa-sweep", "figa-sweep", "pgd", "pgd"]


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
    todo = [Job(run="rga-transfer", name="fgsm", part=part, limit=1) for part in SETS]
    todo += [Job(run="score", name="simba", part=SETS[0], limit=1)]
    for job in [*todo, todo[0]]:  # typed again, nothing is left to do and nothing is counted twice
        carry_out(job, source, [victim], data=data, work=work)
    found = bank(work)
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
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
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
    assert text.startswith(f"before\n{BEGIN}\n") and text.endswith(f"{END}\nafter\n") and "old" not in text
