"""Every study end to end on tiny models: complete tables, published rows as published and marked, resumed for free."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from redsam import registry
from redsam.data import open_data
from redsam.errors import InputError, UnknownName
from redsam.models.base import Segmenter
from redsam.studies import Findings, study
from redsam.studies.rga_transfer import AIM
from redsam.studies.tables import MEASURED, PUBLISHED, Table, beside
from redsam.studies.uad_benchmark import budget_rows, transfer_rows

# Options under which attacks are quick; each takes those that it has.
QUICK: dict[str, Any] = {"samples": 2, "grid": 3, "iterations": 2, "flows": 1, "epochs": 1, "prompts": 4, "inner": 1}
FEW = {"points": 1, "boxes": 1, "max_objects": 1}
SHORT: dict[str, dict[str, Any]] = {
    "rga-transfer": {"steps": 1, "prompting": FEW},
    "rga-ablation": {"steps": 1, "prompting": FEW},
    "cross-prompt-matrix": {"steps": 1, "max_objects": 1},
    "figa-sweep": {"steps": 2, "figa_steps": 2, "ks": (1, 100, 1000, None)},
    "attack-sam": {"steps": 2, "cross_steps": 1, "ks": (1, 400)},
    "universal": {"max_objects": 1},
    "eps-curve": {"steps": 1, "levels": (2, 8), "max_objects": 1},
    "defence": {"steps": 1, "defenses": ("jpeg", "noise:sigma=0.1"), "eot": 2, "prompts": ("point",), "max_objects": 1},
}
# Those of natural changes and of texts have tests of their own: test_weather.py, test_text_attack.py.
NATURAL = ("text-attack", "texture", "weather")


class Counting:
    """A progress that counts images."""

    def __init__(self) -> None:
        self.images = 0

    def start(self, **_: Any) -> None: ...
    def cell(self, cell: Any, **_: Any) -> None: ...
    def image(self, record: Any) -> None:
        self.images += 1

    def stop(self, message: str) -> None: ...


def run(
    name: str, model: Segmenter, victim: Segmenter, tested: Path, lessons: Path, out: Path, **more: Any
) -> tuple[Findings, int]:
    """The study with few steps, and how many records it wrote."""
    made = study(name, options=QUICK, **(SHORT[name] | more))
    watch = Counting()
    found = made.run(
        model, open_data(tested), out=out, victims=[victim] if made.transfers else [],
        train=open_data(lessons) if made.trains else None, progress=watch,
    )  # fmt: skip
    return found, watch.images


def ours(table: Table) -> list[dict[str, Any]]:
    return [r for r in table.rows if r["origin"] == MEASURED]


def test_they_are_there() -> None:
    assert {*SHORT, *NATURAL} <= set(registry.names("study"))
    for entry in registry.entries("study"):
        assert {"paper", "year", "url"} <= set(entry.meta)
        assert "eviation" in (entry.obj.__doc__ or "")
        made = registry.create("study", entry.name)
        assert made.attacks_used() or made.corruptions_used()


@pytest.mark.parametrize("name", sorted(SHORT))
def test_it_runs_from_end_to_end_and_again_for_free(
    name: str, model: Segmenter, victim: Segmenter, tested: Path, lessons: Path, tmp_path: Path
) -> None:
    found, images = run(name, model, victim, tested, lessons, tmp_path)
    assert images > 0 and found.failures == 0, (tmp_path / "summary.json").read_text()[-2000:]
    files = ("study.json", "study.md", "summary.json", "report.html", "junit.xml", "plan.json")
    assert all((tmp_path / name).is_file() for name in files)
    stored = json.loads((tmp_path / "study.json").read_text())
    assert stored == json.loads(json.dumps(found.to_json()))
    assert stored["study"]["name"] == name and stored["model"] == "tiny-sam" and stored["data"]["images"] == 2
    text = (tmp_path / "study.md").read_text()
    for table in found.tables:
        assert f"## {table.title}" in text and ours(table)
        for row in table.rows:
            assert row["origin"] in (MEASURED, PUBLISHED)
            assert row["origin"] == MEASURED or row["source"]
            for column in table.columns:
                value = row.get(column)
                assert value is None or isinstance(value, str | int | float), (column, value)
        for row in ours(table):
            values = [row[c] for c in table.columns if c in ("miou", "sd", "asr50", "asr10", "clean")]
            assert all(0 <= v <= 1 for v in values) and row.get("n_images", 2) == 2 and row.get("n_failed", 0) == 0
    if any(r["origin"] == PUBLISHED for t in found.tables for r in t.rows):
        assert text.count(f"| {PUBLISHED} |") == sum(r["origin"] == PUBLISHED for t in found.tables for r in t.rows)
    used = {r["attack"] for r in json.loads((tmp_path / "summary.json").read_text())["cells"]}
    assert used == set(study(name, options=QUICK, **SHORT[name]).attacks_used()) | {"none"}, "an attack was skipped"
    again, more = run(name, model, victim, tested, lessons, tmp_path)
    assert more == 0
    assert [t.to_json() for t in again.tables] == [t.to_json() for t in found.tables]


def test_transfer_has_every_attack_on_every_victim_by_prompt_kind(
    model: Segmenter, victim: Segmenter, tested: Path, lessons: Path, tmp_path: Path
) -> None:
    some = {"attacks": ("aa", "pgd")}
    found, _ = run("rga-transfer", model, victim, tested, lessons, tmp_path, **some)
    (table,) = found.tables
    assert {(r["attack"], r["victim"], r["prompt"]) for r in ours(table)} == {
        (a, v, p) for a in ("clean", "aa", "pgd") for v in ("tiny-sam", "other") for p in ("point", "box", "all")
    }
    cells = {r["cell"]: r for r in json.loads((tmp_path / "summary.json").read_text())["cells"]}
    for row in ours(table):
        spec = json.loads((tmp_path / "records" / row["cell"] / "spec.json").read_text())
        assert spec["select"] == "single" and spec["protocol"]["name"] == "uad"
        if row["attack"] != "clean":
            assert row["eps"] == 8 and spec["probe"]["args"]["steps"] == 1
            assert cells[row["cell"]]["source"] == "tiny-sam" and cells[row["cell"]]["attacker_protocol"] == "uad"
            assert spec["protocol"]["args"]["max_objects"] == 1, "tested as published but for what the test asks"
            assert spec["probe"]["protocol"]["args"] == spec["protocol"]["args"] | AIM, "aimed at few prompts"
    place = [(r["attack"], r["origin"]) for r in table.rows]
    at = place.index(("aa", PUBLISHED))
    assert place[at - 1] == ("aa", MEASURED), "published rows stand beside the measured ones of their attack"
    # another victim costs its own cells only
    count = len(list(tmp_path.glob("records/*/DONE")))
    third = victim  # the same weights under another name are the same victim
    again = study("rga-transfer", options=QUICK, **(SHORT["rga-transfer"] | some))
    watch = Counting()
    again.run(model, open_data(tested), out=tmp_path, victims=[third, victim, model], progress=watch)
    assert watch.images == 0 and len(list(tmp_path.glob("records/*/DONE"))) == count


def test_some_variants_of_the_ablation(model: Segmenter, victim: Segmenter, tested: Path, tmp_path: Path) -> None:
    found, _ = run("rga-ablation", model, victim, tested, tested, tmp_path, variants=["rga", "rga, no map"])
    assert {r["attack"] for r in found.tables[0].rows} == {"clean", "rga", "rga, no map"}
    with pytest.raises(InputError, match="no variant 'rga, no mop'"):
        study("rga-ablation", variants=("rga, no mop",))


def test_the_sweep_moves_as_many_pixels_as_it_says(
    model: Segmenter, victim: Segmenter, tested: Path, lessons: Path, tmp_path: Path
) -> None:
    found, _ = run("figa-sweep", model, victim, tested, lessons, tmp_path, ks=(1, 100, None))
    rows = ours(found.tables[0])
    assert [r["k"] for r in rows] == [1, 100, "all"]
    assert rows[0]["modified pixels"] <= 2 and 100 <= rows[1]["modified pixels"] <= 200
    assert rows[2]["modified pixels"] > 5000
    assert rows[0]["MSE"] < rows[1]["MSE"] < rows[2]["MSE"] <= (2 / 255) ** 2
    assert all(r["iterations"] <= 2 and r["seconds per image"] > 0 for r in rows)
    assert all(r["reference"] == "clean prediction" for r in rows)


def test_the_matrix_has_a_column_for_every_test_prompt(
    model: Segmenter, victim: Segmenter, tested: Path, lessons: Path, tmp_path: Path
) -> None:
    found, _ = run("cross-prompt-matrix", model, victim, tested, lessons, tmp_path, prompts=("point", "box"))
    pivot, full = found.tables
    lines = {(r["victim"], r["attack"], r["crafted"]): r for r in pivot.rows}
    for who in ("tiny-sam", "other"):
        for attack, crafted in (("pgd, one kind of prompt", "point"), ("cross-prompt", "all kinds")):
            line = lines[who, attack, crafted]
            for asked in ("point", "box"):
                (row,) = [
                    r for r in ours(full)
                    if (r["victim"], r["attack"], r["crafted"], r["tested"]) == (who, attack, crafted, asked)
                ]  # fmt: skip
                assert line[asked] == row["miou"]


def test_universal_perturbations_are_learned_elsewhere_and_beside_noise(
    model: Segmenter, victim: Segmenter, tested: Path, lessons: Path, tmp_path: Path
) -> None:
    some = {"attacks": ("darksam",)}
    found, _ = run("universal", model, victim, tested, lessons, tmp_path, **some)
    rows = ours(found.tables[0])
    assert list(dict.fromkeys(r["attack"] for r in rows)) == ["clean", "uniform noise", "darksam"]
    files = list((tmp_path / "universal").glob("*.safetensors"))
    assert len(files) == 1 and files[0].name.startswith("darksam-")
    summary = {r["cell"]: r for r in json.loads((tmp_path / "summary.json").read_text())["cells"]}
    noise = next(summary[r["cell"]] for r in rows if r["attack"] == "uniform noise")
    # Uniform in the ball: mean square eps^2 / 3; pixels at 0 or 255 lose a little.
    assert 0.2 * (10 / 255) ** 2 < noise["mse"] < 0.36 * (10 / 255) ** 2 and noise["linf_max"] <= 10 / 255
    with pytest.raises(InputError, match="the same"):
        study("universal").run(model, open_data(tested), out=tmp_path / "x", train=open_data(tested))


# --- published rows ---------------------------------------------------------------------------------------------------
def test_published_numbers_are_those_of_the_logs() -> None:
    rows = {(r["attack"], r["victim"], r["prompt"]): r for r in transfer_rows()}
    assert len(rows) == 7 * 4 + 3 * 2
    one = rows["uad", "SAM-B", "all"]
    assert (one["miou"], one["sd"], one["asr50"], one["asr10"]) == (0.5153, 0.34, 0.4389, 0.2079)
    assert (rows["attack-sam-k", "SAM-H", "all"]["miou"], rows["pata++", "FastSAM", "all"]["asr10"]) == (0.7871, 0.5465)
    assert (rows["aa", "SAM-B", "point"]["miou"], rows["aa", "SAM-B", "box"]["miou"]) == (0.4995, 0.7958)
    assert ("rga", "SAM-B", "all") not in rows, "that row was not recovered"
    curve = {(r["attack"], r["victim"], r["eps"]): r["miou"] for r in budget_rows()}
    assert curve["uad", "SAM-H", 16] == 0.5728 and curve["pata", "SAM-B", 4] == 0.7507 and len(curve) == 24


def test_beside_leaves_no_row_out() -> None:
    mine = [{"attack": "a", "n": 1}, {"attack": "b", "n": 2}]
    theirs = [{"attack": "c", "n": 3}, {"attack": "a", "n": 4}]
    assert [r["n"] for r in beside(mine, theirs, by=("attack",))] == [1, 4, 2, 3]


def test_markdown_prints_intervals_and_dashes() -> None:
    row = {"attack": "a|b", "miou": 0.5, "miou_lo": 0.25, "miou_hi": 0.75, "n_images": 40, "sd": None, "eps": 1.7e-6}
    table = Table(title="T", columns=("attack", "miou", "n_images", "sd", "eps"), rows=(row,))
    assert table.markdown().splitlines()[-1] == "| a\\|b | 0.500 [0.250, 0.750] | 40 | \N{EN DASH} | 1.7e-06 |"


# --- refusals ---------------------------------------------------------------------------------------------------------
def test_what_cannot_run_is_said_before_anything_runs(model: Segmenter, tested: Path, tmp_path: Path) -> None:
    data = open_data(tested)
    with pytest.raises(UnknownName, match="no study named 'rga-transfr'. Did you mean 'rga-transfer'"):
        study("rga-transfr")
    with pytest.raises(UnknownName, match="Did you mean 'steps'"):
        study("rga-transfer", stepss=1)
    with pytest.raises(UnknownName, match="no attack named 'pgdd'"):
        study("rga-transfer", attacks=("pgdd",)).run(model, data, out=tmp_path)
    with pytest.raises(InputError, match="takes no victims"):
        study("figa-sweep").run(model, data, out=tmp_path, victims=[model])
    with pytest.raises(InputError, match="--train DIR"):
        study("universal").run(model, data, out=tmp_path)
    with pytest.raises(InputError, match="learns from no images"):
        study("eps-curve").run(model, data, out=tmp_path, train=data)
    assert not list(tmp_path.iterdir())
