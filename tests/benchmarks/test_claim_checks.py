"""Checks on made-up records whose answer is known; one tiny run from photographs to the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import claim_checks
import pytest
from attack_jobs import bank
from claim_checks import CROSSED, MARKER, NOISE, SURROGATES, checks, judged, main
from claims import ALL_PIXELS
from evidence import NOT_REPRODUCED, REPRODUCED
from pages import markers

from redsam.models import tiny
from tests.backdoor.conftest import draw_world
from tests.benchmarks.test_claims import field

KINDS = ("point", "points", "box", "mask")
PGD = "pgd, one kind of prompt"


def test_each_way_of_the_matrix_is_judged_by_itself() -> None:
    checked, wanted = [], []
    for label, (level, verdict) in zip(CROSSED, ((0.4, NOT_REPRODUCED), (0.2, REPRODUCED)), strict=True):
        checked += [field("cross-prompt", PGD + label, 0.3, crafted=a, tested=b) for a in KINDS for b in KINDS]
        ours = f"cross-prompt{label}"
        checked += [field("cross-prompt", ours, level, crafted="all kinds", tested=k) for k in KINDS]
        wanted += [(verdict, pytest.approx(0.3 - level, abs=1e-6))] * (1 + len(KINDS))
    found = judged([], checked)
    assert list(found) == ["cross-prompt"]
    assert [(c.verdict, c.value) for c in found["cross-prompt"]] == wanted


def test_pixels_and_scores_are_judged_by_the_claims_own_rules() -> None:
    table = [field("figa-sweep", ALL_PIXELS, 0.1, pixels=1000)]
    checked = [
        field("figa", "figa, k = 1000, 25 steps", 0.12, pixels=100),
        field("black-box", NOISE, 0.99),
        *(field("black-box", f"pgd from {name}", 0.5) for name in SURROGATES),
    ]
    found = judged(table, checked)
    assert [c.verdict for c in found["figa"]] == [REPRODUCED, REPRODUCED]
    assert [c.verdict for c in found["black-box"]] == [REPRODUCED, *[NOT_REPRODUCED] * len(SURROGATES)]


def test_from_photographs_to_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in {check.part for check in checks(1)}:
        draw_world(tmp_path / "eval" / part, 2, seed=5)
    models = {"lab-b": tiny("sam"), **{name: tiny("sam", seed=i + 1) for i, name in enumerate(SURROGATES)}}
    for name, model in models.items():
        model.name = name
    monkeypatch.setattr(claim_checks, "load", lambda name, device: models[name])
    monkeypatch.setattr(claim_checks, "run_all", in_turn)
    monkeypatch.setattr(claim_checks, "STEPS", 2)
    page, out = tmp_path / "page.md", tmp_path / "out.json"
    begin, end = markers(MARKER)
    page.write_text(f"{begin}\n{end}\n")
    argv = ["x", "--data", tmp_path / "eval", "--limit", "1", "--only", "black-box", "--work", tmp_path / "work",
            "--table", tmp_path / "none", "--out", out, "--page", page, "--device", "cpu"]  # fmt: skip
    monkeypatch.setattr("sys.argv", [str(a) for a in argv])
    main()
    told = json.loads(out.read_text())["checks"]
    assert [c["images"] for c in told["black-box"]] == [2] * 4 and "figa" not in told
    assert page.read_text().count("\n| ") == 5
    assert {f.attack for f in bank(tmp_path / "work")} == {NOISE, *(f"pgd from {s}" for s in SURROGATES)}


def in_turn(todo: Any, work: Any, **_: Any) -> list[str]:
    """`run_all` without processes."""
    for job in todo:
        work(job)
    return []
