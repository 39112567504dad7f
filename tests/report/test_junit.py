"""junit.xml: parses, counts, and goes red for the right reasons."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import fake
import pytest

from redsam.errors import InputError, UnknownName
from redsam.report import render


def suite(out: Path, gates: dict[str, str] | None = None) -> ET.Element:
    render(out, gates=gates)
    return ET.parse(out / "junit.xml").getroot()


@pytest.fixture(scope="module")
def clean_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake.make_run(tmp_path_factory.mktemp("junit") / "run", attacks=("pgd",), levels=(8,))


def test_one_case_a_cell_with_its_numbers(clean_run: Path) -> None:
    root = suite(clean_run)
    rows = json.loads((clean_run / "summary.json").read_text())["cells"]
    cases = list(root.iter("testcase"))
    assert len(cases) == len({r["cell"] for r in rows}) == int(root.get("tests", "")) == 4
    assert root.get("failures") == root.get("errors") == root.get("skipped") == "0"
    values = {p.get("name"): p.get("value") for p in cases[-1].iter("property")}
    last = [r for r in rows if f"[{r['cell']}]" in str(cases[-1].get("name")) and r["reference"] == "ground truth"][0]
    assert values[f"ground truth/{last['prompt_kind']}/miou_adv"] == repr(last["miou_adv"])


def test_a_failed_record_fails_its_cell(finished: Path) -> None:
    root = suite(finished)
    assert root.get("failures") == root.get("tests") == "10"
    failure = next(root.iter("failure"))
    assert failure.get("type") == "failed-records" and "the file is cut short" in str(failure.text)


def test_budget_violation_and_unfinished_cell(tmp_path: Path) -> None:
    out = fake.make_run(tmp_path / "run", attacks=("pgd",), levels=(8,), done=False)
    summary = json.loads((out / "summary.json").read_text())
    for r in summary["cells"]:
        r["linf_max"] = 9 / 255
    (out / "summary.json").write_text(json.dumps(summary))
    root = suite(out)
    assert {f.get("type") for f in root.iter("failure")} == {"budget-violation"} and root.get("failures") == "4"
    assert root.get("errors") == "4"


def test_gates(clean_run: Path) -> None:
    assert suite(clean_run, {"miou_adv": ">= 0"}).get("failures") == "0"
    assert suite(clean_run, {"miou_adv": ">= 0.99"}).get("failures") == "2"
    with pytest.raises(UnknownName, match="miou_adv"):
        suite(clean_run, {"miou_ad": ">= 0"})
    with pytest.raises(InputError, match="comparison"):
        suite(clean_run, {"miou_adv": "0.3"})


def test_control_characters_do_not_break_the_xml(tmp_path: Path) -> None:
    out = fake.make_run(
        tmp_path / "run", attacks=("pgd",), levels=(8,), failed=[("a\x00<b>", "bad \x1b[31m & <worse>")]
    )
    assert next(suite(out).iter("failure")).text is not None
