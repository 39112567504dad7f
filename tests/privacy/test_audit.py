"""Whole audits with toy detectors: verdicts, resume after kill -9, determinism, nothing that names anybody."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from redsam.errors import InputError
from redsam.privacy import People, Plan, Rule, audit
from redsam.report.privacy import render

PLAN = Plan(grids=24)
MODEL = {"name": "toy", "family": "toy", "fingerprint": "0"}

RUN = """
import sys, time
sys.path.insert(0, sys.argv[3])
from conftest import Toy
from redsam.privacy import Plan, audit, read_people
toy = Toy(6)
def slow(image, text):
    time.sleep(0.001)
    return toy(image, text)
people = read_people(sys.argv[1])
print("ready", flush=True)
audit(slow, people, out=sys.argv[2], model={"name": "toy"}, plan=Plan(grids=15))
"""


def records(out: Path) -> list[str]:
    (path,) = out.glob("records/*/samples.jsonl")
    return path.read_text().splitlines()


def test_knows_those_it_knows(people: People, toy: Callable[..., Any], tmp_path: Path) -> None:
    found = audit(toy(6), people, out=tmp_path / "out", model=MODEL, plan=PLAN, rule=Rule(margin=0.4))
    assert [r.verdict for r in found.results] == ["knows"] * 6 + ["does not know"] * 6
    assert found.labels[:2] == ("A. F.", "B. Q.")


def test_a_guesser_knows_nobody(people: People, toy: Callable[..., Any], tmp_path: Path) -> None:
    found = audit(toy(0, guess=True), people, out=tmp_path / "out", model=MODEL, plan=PLAN)
    assert not [r for r in found.results if r.verdict == "knows"]


def test_everybody_is_asked_first_and_those_on_the_grid_again(
    people: People, toy: Callable[..., Any], tmp_path: Path
) -> None:
    found = audit(toy(12), people, out=tmp_path, model=MODEL, plan=Plan(grids=2))
    for record in map(json.loads, records(tmp_path)):
        assert record["asked"][:9] == record["people"]
        assert sorted(record["asked"]) == (list(range(52)) if record["permutation"] == 0 else sorted(record["people"]))
    assert found.summary["queries"] == 2 * (52 + 18) and len(found.summary["decoys"]) == 40


def test_a_detector_that_looks_once_is_asked_once_a_picture(
    people: People, toy: Callable[..., Any], tmp_path: Path
) -> None:
    class Looks:
        def __init__(self) -> None:
            self.pictures, self.one = 0, toy(6)

        def detect_all(self, image: Any, texts: Any) -> Any:
            self.pictures += 1
            return [self.one(image, text) for text in texts]

    looks = Looks()
    audit(looks, people, out=tmp_path / "all", model=MODEL, plan=Plan(grids=2))
    assert looks.pictures == 6
    audit(toy(6), people, out=tmp_path / "one", model=MODEL, plan=Plan(grids=2))
    assert records(tmp_path / "all") == records(tmp_path / "one")


def test_decoys_of_ones_own(people: People, toy: Callable[..., Any], tmp_path: Path) -> None:
    own = [f"Nobody {chr(65 + i)}x" for i in range(38)]
    asked: list[str] = []

    def listening(image: Any, text: str) -> Any:
        asked.append(text)
        return toy(6)(image, text)

    audit(listening, people, out=tmp_path, model=MODEL, plan=Plan(grids=1), decoys=own)
    assert set(own) < set(asked)
    with pytest.raises(InputError, match="10 invented names cannot carry an error rate of 0.05"):
        audit(listening, people, out=tmp_path, model=MODEL, plan=Plan(grids=1), decoys=own[:10])


def test_the_same_seed_asks_the_same(people: People, toy: Callable[..., Any], tmp_path: Path) -> None:
    for name in ("a", "b"):
        audit(toy(6), people, out=tmp_path / name, model=MODEL, plan=Plan(grids=2))
    assert records(tmp_path / "a") == records(tmp_path / "b")
    pages = [json.loads((tmp_path / n / "privacy.json").read_text()) for n in ("a", "b")]
    assert pages[0] == pages[1]
    audit(toy(6), people, out=tmp_path / "c", model=MODEL, plan=Plan(grids=2, seed=1))
    assert records(tmp_path / "a") != records(tmp_path / "c")


def test_another_rule_or_label_asks_nothing_again(people: People, toy: Callable[..., Any], tmp_path: Path) -> None:
    detector = toy(6)
    audit(detector, people, out=tmp_path, model=MODEL, plan=Plan(grids=2))
    asked = detector.calls
    assert asked == 2 * ((12 + 40) + 2 * 9)
    named = audit(detector, people, out=tmp_path, model=MODEL, plan=Plan(grids=2), rule=Rule(alpha=0.5), show="names")
    assert detector.calls == asked and named.labels[0] == "Arlo Finch"
    audit(detector, people, out=tmp_path, model=MODEL | {"fingerprint": "1"}, plan=Plan(grids=2))
    assert detector.calls == 2 * asked, "another model's answers were taken"


@pytest.mark.parametrize("show", ["initials", "hashes"])
def test_no_file_names_anybody(people: People, toy: Callable[..., Any], tmp_path: Path, show: Any) -> None:
    left = replace(people.persons[0], name="Never Shown")
    several = replace(people, persons=(left, *people.persons[1:]))

    def detector(image: Any, text: str) -> Any:
        return [] if text == "Never Shown" else toy(6)(image, text)

    audit(detector, several, out=tmp_path / "o", model=MODEL, plan=Plan(grids=2), show=show)
    render(tmp_path / "o")
    for path in (tmp_path / "o").rglob("*"):
        text = path.read_bytes().decode("latin-1") if path.is_file() else ""
        assert not [w for p in several.persons for w in p.name.split() if len(w) > 3 and w in text], path


def test_odd_boxes_are_counted_and_never_stop_an_audit(people: People, tmp_path: Path) -> None:
    odd = [(math.nan, 0, 1, 1), (0, 0, 9999, 9), (-50, -50, -40, -40), (5, 5, 9, 9)]
    found = audit(
        lambda image, text: [SimpleNamespace(box=b, score=1.0) for b in odd],
        people, out=tmp_path, model=MODEL, plan=Plan(grids=2),
    )  # fmt: skip
    asked = [r for r in found.results if r.grids]
    assert {r.counts.errors / (3 * r.grids) for r in asked} == {3}
    assert all(r.counts.tp + r.counts.fp == 3 * r.grids for r in asked)
    assert not [r for r in found.results if r.verdict == "knows"]


@pytest.mark.slow
def test_killed_and_resumed_equals_an_uninterrupted_run(folder: Path, tmp_path: Path) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"

    def start(out: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", RUN, str(folder), str(out), str(Path(__file__).parent)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        return child

    def lines() -> int:
        return sum(p.read_bytes().count(b"\n") for p in torn.glob("records/*/samples.jsonl"))

    assert start(whole).wait() == 0
    for target in (5, 20):
        child = start(torn)
        while lines() < target and child.poll() is None:
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert 20 <= lines() < 45, "nothing was left to resume"
    with next(torn.glob("records/*/samples.jsonl")).open("ab") as file:
        file.write(b'{"sample": "g')  # torn
    assert start(torn).wait() == 0
    assert records(torn) == records(whole)
    names = [json.loads((out / "privacy.json").read_text())["names"] for out in (whole, torn)]
    assert names[0] == names[1]


def test_too_few_people(people: People, toy: Callable[..., Any], tmp_path: Path) -> None:
    few = replace(people, persons=people.persons[:5])
    with pytest.raises(InputError, match="needs 9 people, there are 5"):
        audit(toy(0), few, out=tmp_path, model=MODEL)
    assert audit(lambda image, text: [], few, out=tmp_path, model=MODEL, plan=Plan(size=2, grids=3)).results


def test_the_page_is_self_contained_and_says_what_it_cannot(
    people: People, toy: Callable[..., Any], tmp_path: Path
) -> None:
    audit(toy(6), people, out=tmp_path, model=MODEL | {"name": "<toy>"}, plan=PLAN)
    text = render(tmp_path).read_text()
    assert "knows 6 of 12 names" in text and "&lt;toy&gt;" in text and "<toy>" not in text
    assert "cannot conclude" in text and "Chance: every tile" in text and "0.200" in text
    assert "http" not in text.replace("http-equiv", "") and "src=" not in text
    with pytest.raises(InputError, match="is not there"):
        render(tmp_path / "nowhere")
