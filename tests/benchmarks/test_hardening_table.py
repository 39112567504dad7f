"""Verdicts on made-up records, so that the table can show failure; and one tiny run from training to table, twice."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hardening_jobs
import hardening_table
import numpy as np
import pytest
from evidence import Field
from hardening_jobs import ATTACKS, UNDEFENDED, VARIANTS, Job, attack_jobs, bank, gradients, train_jobs, trained
from hardening_page import markdown
from hardening_rows import NO, OPEN, YES, beside, rows, strongest
from hardening_table import MARKER, main
from pages import markers

from redsam import registry
from redsam.models import tiny
from redsam.tuning import Course
from tests.tuning.conftest import write_photos

IMAGES = 30
FACTS: dict[str, Any] = {"numbers": 512, "parameters": 100_000, "steps": 9, "minutes": 1.0, "best": {}}


def field(attack: str, victim: str, how: str, level: float, *, clean: float = 0.7, noise: float = 0.02) -> Field:
    rng = np.random.default_rng(len(attack) + 7 * len(victim) + 3 * len(how))
    signs = rng.permutation(np.resize([1.0, -1.0], IMAGES))
    records = tuple(
        {"sample": f"s/{i}", "status": "ok",
         "prompts": [{"kind": "box", "iou_clean_gt": clean, "iou_adv_gt": level + noise * signs[i],
                      "iou_adv_clean": level}]}
        for i in range(IMAGES)
    )  # fmt: skip
    return Field(run="lab-b", attack=attack, victim=victim, crafted=how, records=records)


def measured(variant: str, *, static: float, adaptive: float, clean: float = 0.7, noise: float = 0.02) -> list[Field]:
    out = [field("clean", variant, "clean", clean, clean=clean)]
    for attack in ATTACKS:
        out += [
            field(attack, variant, "static", static, clean=clean, noise=noise),
            field(attack, variant, "adaptive", adaptive, clean=clean, noise=noise),
        ]
    return out


BASE = measured(UNDEFENDED, static=0.2, adaptive=0.2)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ({"static": 0.4, "adaptive": 0.4}, (YES, YES, YES)),
        ({"static": 0.4, "adaptive": 0.2}, (YES, NO, YES)),  # broken by who knows it: shown, not hidden
        ({"static": 0.2, "adaptive": 0.2}, (NO, NO, YES)),
        ({"static": 0.4, "adaptive": 0.4, "clean": 0.6}, (YES, YES, NO)),
        ({"static": 0.23, "adaptive": 0.23, "noise": 0.3}, (OPEN, OPEN, YES)),
    ],
)
def test_the_claim_is_judged_by_intervals(levels: dict[str, float], expected: tuple[str, str, str]) -> None:
    table = rows([*BASE, *measured("svd", **levels)], {("lab-b", "svd"): FACTS}, ["lab-b"])
    assert [r["variant"] for r in table] == [UNDEFENDED, "svd"]
    row = table[1]
    assert (row["static_verdict"], row["adaptive_verdict"], row["clean_verdict"]) == expected
    assert row["adaptive_gain"]["value"] == pytest.approx(levels["adaptive"] - 0.2, abs=1e-9)
    assert row["static_bar"] == pytest.approx(0.03)
    assert row["adaptive_gain"]["lo"] <= row["adaptive_gain"]["value"] <= row["adaptive_gain"]["hi"]
    assert row["adaptive_kinds"].keys() == {"box"}  # the only kind in these records
    assert row["adaptive_kinds"]["box"]["value"] == pytest.approx(row["adaptive_gain"]["value"])
    best = strongest(table, "lab-b")
    assert (best is not None) == (expected == (YES, YES, YES))
    text = markdown(table, ["x"], "30 images.")
    assert f"| {' / '.join(expected)} |" in text and "Not run: x." in text
    assert ("none of those tried" in text) == (best is None)


def test_rows_of_an_earlier_table_stay_beside_the_new() -> None:
    old = [{"model": m, "variant": v, "n": 0} for m in ("lab-b", "lab2") for v in ("lora", UNDEFENDED, "gone")]
    new = [{"model": "lab2", "variant": v, "n": 1} for v in (UNDEFENDED, "svd")]
    assert [(r["model"], r["variant"], r["n"]) for r in beside(new, old)] == [
        ("lab-b", UNDEFENDED, 0), ("lab-b", "lora", 0), ("lab2", UNDEFENDED, 1), ("lab2", "svd", 1), ("lab2", "lora", 0)
    ]  # fmt: skip


def test_by_prompts_the_undefended_shows_what_is_left() -> None:
    text = markdown(
        rows([*BASE, *measured("svd", static=0.4, adaptive=0.3)], {("lab-b", "svd"): FACTS}, ["lab-b"]), [], ""
    )
    lines = text.partition("Gain by prompts")[2].splitlines()[4:6]
    assert lines[0].startswith("| lab-b | undefended |  | 0.200 [") and lines[1].startswith(
        "| lab-b | svd |  | +0.200 ["
    )


def test_the_strongest_has_few_parameters_and_holds() -> None:
    fields = [*BASE, *measured("svd", static=0.3, adaptive=0.3), *measured("svd-encoder", static=0.35, adaptive=0.35),
              *measured("full", static=0.5, adaptive=0.5), *measured("norm", static=0.5, adaptive=0.1)]  # fmt: skip
    facts = {("lab-b", v): FACTS | {"numbers": n} for v, n in
             (("svd", 512), ("svd-encoder", 4256), ("full", 100_000), ("norm", 600))}  # fmt: skip
    best = strongest(rows(fields, facts, ["lab-b"]), "lab-b")
    assert best is not None and best["variant"] == "svd-encoder"


def test_what_is_not_measured_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(rows(BASE, {("lab-b", "svd"): FACTS}, ["lab-b"])) == 1
    assert "lab-b svd: not measured" in capsys.readouterr().out


def test_who_was_not_attacked_adaptively_is_said_to_be() -> None:
    """And a mean over five of the six attacks does not stand beside means over six."""
    fields = [*BASE, *measured("svd", static=0.4, adaptive=0.4)]
    fields = [f for f in fields if (f.victim, f.attack, f.crafted) != ("svd", ATTACKS[0], "adaptive")]
    table = rows(fields, {("lab-b", "svd"): FACTS}, ["lab-b"])
    assert table[1]["static_verdict"] == YES and table[1]["adaptive"] is None
    assert strongest(table, "lab-b") is None
    assert "| not attacked |  | 0 | yes / not attacked / yes |" in markdown(table, [], "30 images.")


def test_jobs() -> None:
    assert {a: gradients(a) for a in ATTACKS} == {
        "fgsm": 1, "pgd": 40, "mifgsm": 10, "attack-sam-k": 40, "cross-prompt": 40, "rga": 40
    }  # fmt: skip
    assert len(train_jobs(["a", "b"], list(VARIANTS))) == 2 * len(VARIANTS)
    found = attack_jobs(["a"], ["svd"], ["fgsm", "rga"])
    assert [(j.source, j.attack) for j in found] == [
        (UNDEFENDED, "rga"), ("svd", "rga"), (UNDEFENDED, "fgsm"), ("svd", "fgsm")
    ]  # fmt: skip


def test_a_variant_may_have_a_training_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def caught(*_: Any, method: Any, out: Path, course: Course) -> Any:
        seen[out.name] = (method, course)
        return SimpleNamespace(facts={})

    monkeypatch.setattr(hardening_jobs, "harden", caught)
    monkeypatch.setattr(hardening_jobs, "load", lambda *_, **__: None)
    asked = Course(minutes=10.0, check_every=40)
    for name in ("lora", "lora-long"):
        hardening_jobs.train(Job(kind="train", model="lab-b", source=name), None, asked, work=tmp_path)  # type: ignore[arg-type]
    (short, usual), (wide, own) = seen["lora"], seen["lora-long"]
    assert usual == asked and short == registry.create("defense", "lora")
    assert (own.minutes, own.held_out, own.batch) == (30.0, 48, asked.batch) and wide.rank == 8
    assert own.threat == asked.threat and own.recipes != asked.recipes


def test_from_training_to_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "small"
    tiny("sam", seed=1).model.save_pretrained(model)  # type: ignore[operator]
    write_photos(tmp_path / "pool" / "a", 6)
    write_photos(tmp_path / "eval" / "b", 2)
    monkeypatch.setattr(hardening_table, "run_all", in_turn)
    page, out = tmp_path / "page.md", tmp_path / "out.json"
    begin, end = markers(MARKER)
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    argv = ["--models", model, "--variants", "svd", "bias", "--attacks", "fgsm", "--steps", 2, "--train-batch", 2,
            "--held-out", 2, "--check-every", 2, "--pool", tmp_path / "pool", "--pool-sets", "a", "--data",
            tmp_path / "eval", "--sets", "b", "--limit", 2, "--baseline-limit", 1, "--work", tmp_path / "work",
            "--out", out, "--page", page,
            "--device", "cpu", "--threads", 1]  # fmt: skip
    for _ in range(2):  # typed again, nothing is left to do and nothing is counted twice
        with pytest.raises(SystemExit) as stop:
            main([str(a) for a in argv])
        assert stop.value.code == 0
    told = json.loads(out.read_text())
    assert [r["variant"] for r in told["rows"]] == [UNDEFENDED, "svd", "bias"]
    assert told["rows"][1]["numbers"] == 352 and told["rows"][1]["adaptive"]["images"] == 2
    bias = told["rows"][2]  # a baseline: clean and static on both images, adaptive on one of them
    assert (bias["clean"]["images"], bias["static"]["images"], bias["adaptive"]["images"]) == (2, 2, 1)
    fields = bank(tmp_path / "work")
    assert {(f.victim, f.crafted) for f in fields if f.attack == "fgsm"} == {
        (v, how) for v in (UNDEFENDED, "svd", "bias") for how in ("static", "adaptive")
    }
    assert (trained(tmp_path / "work", str(model), "svd") / "delta.safetensors").exists()
    assert [r.get("delta") for r in told["rows"]] == [None, True, True]
    text = page.read_text()
    assert "equal in every bit: 2 of 2." in text
    assert (
        "--models small --variants svd bias --attacks fgsm --steps 2" in told["command"] and str(tmp_path) not in text
    )
    assert text.startswith(f"before\n{begin}\n") and text.endswith(f"{end}\nafter\n")
    assert "| small | svd | 352 |" in text


def in_turn(todo: Any, work: Any, **_: Any) -> list[str]:
    """`run_all` without processes."""
    for job in todo:
        work(job)
    return []
