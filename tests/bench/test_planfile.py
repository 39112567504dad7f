"""Plan files: what they say becomes the cells an audit has, and a slip is one line that names the place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from redsam.bench import PRESETS
from redsam.bench.lanes import Shelf, make_lanes
from redsam.bench.plan import make_plan
from redsam.bench.planfile import plan_of, read_plan
from redsam.bench.presets import preset
from redsam.data import open_data
from redsam.defenses import load
from redsam.errors import InputError, RedsamError
from redsam.models import load as load_model

LEAST: dict[str, Any] = {"models": ["lab-b"], "prompts": ["point"]}


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_plan_with_a_preset_asks_what_an_audit_asks(name: str) -> None:
    assert plan_of({"models": "lab-b", "preset": name}).asked() == preset(name)


def test_cells_are_those_of_an_audit(tiny_folder: Path, folder: Path) -> None:
    """The same ids, so a bench goes on in the folder of an audit, and an audit in that of a bench."""
    plan = plan_of(
        {
            "models": [{"name": str(tiny_folder)}],
            "defenses": ["none", ["jpeg:quality=50", "median"]],
            "data": str(folder),
            "preset": "quick",
            "limit": 3,
            "joint": False,
            "seed": 7,
        }
    )
    lanes = make_lanes(plan, shelf=Shelf())
    data = open_data(folder).limit(3)
    expected = []
    for defenses in ((), ("jpeg:quality=50", "median")):
        segmenter = load(str(tiny_folder), defenses=defenses, seed=7)
        expected += make_plan([segmenter], data, plan.asked(), objects="annotated", seed=7).cells
    assert [c.id for c in lanes.cells] == [c.id for c in expected]
    assert [lane.defenses for lane in lanes.lanes] == [(), ("jpeg:quality=50", "median")]


def test_prompts_probes_and_fractions() -> None:
    asked = plan_of(
        LEAST
        | {
            "prompts": ["box", {"name": "points", "args": {"k": 5}}],
            "probes": [
                {"attack": "pgd", "args": {"steps": 3}, "threats": ["8/255", 0.5, {"norm": "l2", "eps": "1/2"}]},
                {"corruption": "fog", "severities": 3},
            ],
        }
    ).asked()
    assert asked.protocols == (("box", {}), ("points", {"k": 5}))
    threats = [dict(t) for t in asked.trials[0].threats]
    assert threats == [{"norm": "linf", "eps": 8 / 255}, {"norm": "linf", "eps": 0.5}, {"norm": "l2", "eps": 0.5}]
    assert asked.changes[0].severities == (3,) and asked.changes[0].corruption == "fog"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": ["lab-b"]}, r"no key of the plan named 'model'.*'models'"),
        ({"probes": [{"attack": "pgd", "threat": "8/255"}]}, r"probes\[0\]"),
        ({"probes": [{"attack": "pgd", "threats": ["8/255"], "step": 3}]}, r"key of probes\[0\] named 'step'"),
        ({"probes": [{"corruption": "fog", "severity": 3}]}, r"probes\[0\] named 'severity'.*'severities'"),
        ({"probes": [{"attack": "pgd"}]}, r"probes\[0\] has no 'threats'"),
        ({"probes": [{"attack": "pgd", "threats": [8]}]}, r"eps=8 is larger"),
        ({"probes": [{"attack": "pgd", "threats": [{"norm": "linf", "epsilon": 0.1}]}]}, r"no 'epsilon'"),
        ({"models": [{"name": "lab-b", "dtyp": "float16"}]}, r"models\[0\] named 'dtyp'.*'dtype'"),
        ({"models": []}, r"models: list should have at least 1"),
        ({"limit": "many"}, r"limit: input should be a valid integer"),
        ({"data": [{"path": "demo", "limits": 3}]}, r"data\[0\] named 'limits'.*'limit'"),
    ],
)
def test_a_slip_is_one_line_with_the_place_and_the_nearest_key(change: dict[str, Any], said: str) -> None:
    with pytest.raises(RedsamError) as caught:
        plan_of(LEAST | change)
    assert re.search(said, str(caught.value)) and "\n" not in str(caught.value)


def test_files_that_are_no_plan(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    for text, said in (
        ("models: [a\n", "not YAML"),
        ("- a\n", "not a plan"),
        ("models: [a]\nprompts: [box]\nmodels: [b]\n", "'models' is there twice"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=said):
            read_plan(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_plan(tmp_path / "nowhere.yaml")
    with pytest.raises(InputError, match="asks no prompts"):
        plan_of({"models": ["lab-b"]}).asked()


def test_two_models_of_one_name_are_refused(tiny_folder: Path, folder: Path, tmp_path: Path) -> None:
    other = load_model(str(tiny_folder))
    with_other = tmp_path / "tiny"
    next(iter(other.model.parameters())).data.add_(1)
    other.model.save_pretrained(with_other)  # type: ignore[operator]
    plan = plan_of({"models": [str(tiny_folder), str(with_other)], "prompts": ["box"], "data": str(folder)})
    with pytest.raises(InputError, match="Two of the models are called 'tiny'"):
        make_lanes(plan, shelf=Shelf())


def test_the_plans_of_the_documentation_are_plans(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "bench.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", text, flags=re.S)
    assert len(blocks) >= 2
    for block in blocks:
        (tmp_path / "plan.yaml").write_text(block)
        read_plan(tmp_path / "plan.yaml").asked()
