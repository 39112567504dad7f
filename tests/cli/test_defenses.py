"""`redsam certify`, `--defense`, MODEL|PURIFIER wherever a model is named, and the study `defence`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from redsam.data import read_image
from tests.cli.conftest import Ran

Redsam = Callable[..., Ran]
Refused = Callable[..., str]


@pytest.fixture
def small(photo: Path, tmp_path: Path) -> Path:
    """The demo photograph at 48 x 32."""
    path = tmp_path / "small.png"
    Image.open(photo).resize((48, 32)).save(path)
    return path


def test_certificates(redsam: Redsam, small: Path, tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    line = ("certify", small, "--model", f"{tiny_folder}|gaussian", "--box", "5,5,40,28", "--point", "9,9")
    ran = redsam(*line, "--sigma", "0.01", "--n", 60, "--n0", 4, "--out", out)
    assert ran.code == 0, ran.err
    assert "l2 radius of 0.00674" in ran.out and "certificate_1.png" in ran.out
    told = json.loads((out / "certificate.json").read_text())
    assert told["model"]["name"] == "tiny+gaussian" and told["defense"]["label"] == "gaussian" and told["n"] == 60
    assert len(told["prompts"]) == 2
    for i, row in enumerate(told["prompts"]):
        assert row["certified_object"] + row["certified_rest"] + row["abstained"] == pytest.approx(1)
        sure = read_image(out / row["certified"])[0] > 0.5
        assert 1 - float(sure.float().mean()) == pytest.approx(row["abstained"])
        drawn, photo = (read_image(p) for p in (out / f"certificate_{i}.png", small))
        rest = sure & ~(read_image(out / row["mask"])[0] > 0.5)
        assert bool((drawn[:, rest] == photo[:, rest]).all()) and not bool((drawn[:, ~rest] == photo[:, ~rest]).all())


def test_certificates_that_cannot_be(refused: Refused, small: Path, tiny_folder: Path, tmp_path: Path) -> None:
    line = ("certify", small, "--model", tiny_folder, "--out", tmp_path / "out")
    assert "No prompt" in refused(*line)
    assert "tau" in refused(*line, "--point", "3,3", "--tau", "0.5")
    assert "sigma" in refused(*line, "--point", "3,3", "--sigma", "-1")
    assert "Give n at least" in refused(*line, "--point", "3,3", "--n", 10)


def test_a_defended_audit_and_attack(redsam: Redsam, small: Path, tiny_folder: Path, tmp_path: Path) -> None:
    ran = redsam("audit", tiny_folder, "--defense", "jpeg:quality=50", "--limit", 1, "--out", tmp_path / "audit")
    assert ran.code == 0, ran.err
    specs = [json.loads(p.read_text()) for p in (tmp_path / "audit").glob("records/*/spec.json")]
    assert specs and all(s["defense"]["label"] == "jpeg:quality=50" and s["model"]["name"] == "tiny" for s in specs)
    page = (tmp_path / "audit" / "report.html").read_text()
    assert "tiny+jpeg:quality=50" in page and "--defense jpeg:quality=50" in page
    line = ("attack", small, "--model", f"{tiny_folder}|median", "--point", "9,9", "--steps", 1, "--json")
    ran = redsam(*line, "--defense", "noise", "--out", tmp_path / "attack")
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    assert told["model"]["name"] == "tiny+median+noise" and told["defense"]["eot"] == 8 == told["gradients"]


def test_defences_that_are_none(refused: Refused, tiny_folder: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    assert "Did you mean 'jpeg'" in refused("audit", f"{tiny_folder}|jpg", *out)
    assert "JPEG quality is 500" in refused("audit", tiny_folder, "--defense", "jpeg:quality=500", *out)
    assert "NAME:OPTION=VALUE" in refused("audit", tiny_folder, "--defense", "jpeg:50", *out)
    assert "option of defense" in refused("audit", tiny_folder, "--defense", "jpeg:qualty=50", *out)
    assert "segcertify" in refused("audit", tiny_folder, "--defense", "segcertify", *out)
    assert "no defence" in refused("protocol", "defence", "--model", tiny_folder, "--set", "defenses=[]", *out)
    assert "Did you mean" in refused("protocol", "defence", "--set", "defenses=jpeg,medan", *out)


def test_the_study(redsam: Redsam, tiny_folder: Path, tmp_path: Path) -> None:
    line = ("protocol", "defence", "--model", tiny_folder, "--set", "defenses=jpeg:quality=50,median:size=5|gaussian")
    few = ("--set", "steps=1", "--set", 'prompts=["point"]', "--set", "max_objects=1", "--limit", 1)
    ran = redsam(*line, *few, "--set", "adaptive=false", "--out", tmp_path / "out", "--json")
    assert ran.code == 0, ran.err
    rows = json.loads(ran.out)["tables"][0]["rows"]
    assert [r["defense"] for r in rows] == ["none", "jpeg:quality=50", "median:size=5|gaussian"]
    assert "no evidence" not in rows[0]["judged"] and all("no evidence" in r["judged"] for r in rows[1:])
    assert all(r.get("adaptive") is None and r["static"] is not None and r["seconds"] > 0 for r in rows[1:])


def test_they_are_listed(redsam: Redsam) -> None:
    ran = redsam("list", "defenses", "--json")
    rows = {r["name"]: r for r in json.loads(ran.out)}
    assert rows["jpeg"]["group"] == "purifier" and rows["segcertify"]["group"] == "smoothing"
