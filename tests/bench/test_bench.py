"""A plan in this process: the records of the audit that it is, several data sets, the plan of docs/bench.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from redsam.bench import audit
from redsam.bench.bench import bench
from redsam.bench.planfile import plan_of
from redsam.cli import main
from redsam.data import open_data
from redsam.models import load
from redsam.report import render


def test_records_are_those_of_an_audit(kit: Any, tmp_path: Path, tiny_folder: Path, folder: Path) -> None:
    audit(load(str(tiny_folder)), open_data(folder), out=tmp_path / "audit", preset=kit.one)
    asked = {"models": [str(tiny_folder)], "prompts": ["point"], "data": str(folder)}
    plan = plan_of(asked | {"probes": [{"attack": "fgsm", "threats": ["8/255"]}]})
    found = bench(plan, out=tmp_path / "bench")
    assert kit.same(tmp_path / "bench") == kit.same(tmp_path / "audit") != {}
    assert found.unfinished == () and {row["attack"] for row in found.cells} == {"none", "fgsm"}


def test_photographs_of_one_name_in_two_sets_do_not_mix(kit: Any, tmp_path: Path, tiny_folder: Path) -> None:
    """Which clean image lies where does not depend on which set came first."""
    one, two = kit.folder(tmp_path / "one", 2), kit.folder(tmp_path / "two", 3, sizes=((40, 64),))
    asked = {"models": [str(tiny_folder)], "prompts": ["box"]}
    forth = bench(plan_of(asked | {"data": [str(one), str(two)]}), out=tmp_path / "forth")
    bench(plan_of(asked | {"data": [str(two), str(one)]}), out=tmp_path / "back")
    assert kit.same(tmp_path / "forth") == kit.same(tmp_path / "back")
    paths = {r["clean_image"] for r in kit.same(tmp_path / "forth").values()}
    assert len(paths) == 5 and all((tmp_path / "forth" / path).is_file() for path in paths)
    assert {row["data"] for row in forth.cells} == {"one", "two"}
    page = render(tmp_path / "forth").read_text()
    assert "tiny on one" in page and "tiny on two" in page, "each set is judged apart"


def test_the_first_plan_of_the_documentation_runs(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "bench.md").read_text()
    block = re.findall(r"```yaml\n(.*?)```", text, flags=re.S)[0]
    (tmp_path / "plan.yaml").write_text(block)
    assert main(["bench", str(tmp_path / "plan.yaml"), "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "report.html").is_file()
    assert main(["bench", str(tmp_path / "plan.yaml"), "--out", str(tmp_path / "run"), "--executor", "rai"]) == 2
