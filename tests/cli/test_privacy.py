"""`redsam privacy`: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from redsam.models import tiny
from redsam.privacy import Geometry

NAMES = ("Ann Roe", "Bo Tan", "Cy Orr", "Di Paz", "Ed Quay", "Flo Rum", "Gil Sow", "Hal Tew", "Ida Urn", "Jo Vex")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number, name in enumerate(NAMES):
        where = tmp_path / "people" / name.replace(" ", "_")
        where.mkdir(parents=True)
        for index in range(2):
            pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            pixels[..., 0] = 20 * number + 10
            Image.fromarray(pixels).save(where / f"{index}.png")
    return tmp_path / "people"


@pytest.fixture
def knowing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that knows the first five."""
    geometry = Geometry(tile=(12, 12))

    def detect(image: Any, text: str) -> list[Any]:
        for tile in range(9):
            x, y, *_ = (int(v) for v in geometry.box(tile))
            if text in NAMES[:5] and round(float(image[0, y, x]) * 255) == 20 * NAMES.index(text) + 10:
                return [SimpleNamespace(box=geometry.box(tile), score=1.0)]
        return []

    model = SimpleNamespace(
        name="toy", family="toy", fingerprint=lambda: "0", device=torch.device("cpu"), detect=detect
    )
    monkeypatch.setattr("redsam.cli.options.load_model", lambda *_: model)


@pytest.mark.usefixtures("knowing")
def test_an_audit(redsam: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    ran = redsam("privacy", "toy", "--people", folder, "--out", tmp_path / "out", "--grids", 20, "--margin", 0.4)
    assert ran.code == 0, ran.err
    assert "10 names: 5 knows, 5 does not know, 0 undecided" in ran.out
    assert "A. R." in ran.out and "Ann" not in ran.out + ran.err
    assert (tmp_path / "out" / "privacy.html").is_file() and "privacy.html" in ran.out
    named = redsam("privacy", "toy", "--people", folder, "--out", tmp_path / "out", "--grids", 20, "--show-names")
    assert "Ann Roe" in named.out and "Ann Roe" in (tmp_path / "out" / "privacy.html").read_text()


@pytest.mark.usefixtures("knowing")
def test_json(redsam: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    ran = redsam("privacy", "toy", "--people", folder, "--out", tmp_path / "out", "--grids", 3, "--hashes", "--json")
    found = json.loads(ran.out)
    assert ran.code == 0 and len(found["names"]) == 10 and found["queries"] == 3 * (10 + 40 + 2 * 9)
    assert all(len(n["name"]) == 8 for n in found["names"])
    assert str(folder) not in ran.out


@pytest.mark.usefixtures("knowing")
def test_what_is_refused(refused: Callable[..., str], folder: Path, tmp_path: Path) -> None:
    base = ("privacy", "toy", "--out", tmp_path / "out", "--people")
    assert "cannot be read" in refused(*base, tmp_path / "nowhere")
    assert "exclude each other" in refused(*base, folder, "--show-names", "--hashes")
    assert "between 0 and 1" in refused(*base, folder, "--margin", 2)
    assert "no correction 'bonferoni'" in refused(*base, folder, "--correction", "bonferoni")
    assert "needs 16 people" in refused(*base, folder, "--size", 4)
    (tmp_path / "names").write_text("Ann_Ro\tX")
    assert "'Ann_Roe'" in refused(*base, folder, "--names-from", tmp_path / "names")
    (folder / "ANN_ROE").mkdir()
    assert "two people with one name" in refused(*base, folder)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("knowing")
def test_names_of_nobody_from_a_file(
    redsam: Callable[..., Any], refused: Callable[..., str], folder: Path, tmp_path: Path
) -> None:
    base = ("privacy", "toy", "--people", folder, "--out", tmp_path / "out", "--grids", 2)
    file = tmp_path / "decoys.txt"
    file.write_text("\n".join(f"Nobody {chr(65 + i % 26)}x{i}" for i in range(38)))
    ran = redsam(*base, "--decoys", file, "--json")
    assert ran.code == 0 and len(json.loads(ran.out)["decoys"]) == 38
    assert "--decoys FILE" in json.loads(ran.out)["command"] and "Nobody" not in ran.out
    assert "file with 198 names" in refused(*base, "--decoys", file, "--alpha", 0.01)
    file.write_text("Ann Roe\n")
    assert "person who is asked for" in refused(*base, "--decoys", file)
    file.write_text("x" * 10_000)
    line = refused(*base, "--decoys", file)
    assert "10000 characters" in line and len(line) < 300


@pytest.mark.usefixtures("knowing")
def test_folders_as_people_leave_them(redsam: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    """One photograph, broken ones, an empty folder are left out and said; grey and alpha are read; nobody is named."""
    one = folder / "Kay_Zed"
    one.mkdir()
    shutil.copy(folder / "Ann_Roe" / "0.png", one / "0.png")
    Image.open(one / "0.png").rotate(90).save(one / "0.png")
    broken = folder / "Lu_Aye"
    broken.mkdir()
    for number, content in enumerate((b"", b"no image", (one / "0.png").read_bytes()[:60])):
        (broken / f"{number}.png").write_bytes(content)
    (folder / "Mo_Bee").mkdir()
    for number, mode in enumerate(("L", "RGBA", "LA", "P")):
        Image.open(folder / "Bo_Tan" / "0.png").rotate(90 * number).convert(mode).save(
            folder / "Bo_Tan" / f"m{number}.png"
        )
    ran = redsam("privacy", "toy", "--people", folder, "--out", tmp_path / "out", "--grids", 2)
    assert ran.code == 0, ran.err
    assert "left out: K. Z., one photograph that can be used" in ran.out
    assert ran.out.count("left out: L. A., photograph") == 3 and "left out: L. A., no photograph" in ran.out
    assert "left out: M. B., no photograph" in ran.out and "10 names" in ran.out
    assert not [w for w in ("Kay", "Zed", "Lu_Aye", "Mo_Bee", "Traceback") if w in ran.out + ran.err]
    page = (tmp_path / "out" / "privacy.html").read_text()
    assert "one photograph that can be used" in page and "Kay" not in page


@pytest.mark.parametrize("second", ["ren\u00e9e roe", "Rene\u0301e_Roe", "\uff32en\u00e9e Roe", "Ren\u00e9e  Roe"])
def test_two_people_with_one_name(refused: Callable[..., str], folder: Path, tmp_path: Path, second: str) -> None:
    """Also where case, spacing, full-width letters or the composition of an accent differ."""
    for number, name in enumerate(("Ren\u00e9e_Roe", second)):
        (folder / name).mkdir(exist_ok=True)
        Image.new("L", (12, 12), 30 * number).save(folder / name / f"{number}.png")
    line = refused("privacy", "lab-text", "--people", folder, "--out", tmp_path / "out")
    assert "two people with one name" in line and "--names-from" in line


@pytest.mark.parametrize(("name", "words"), [("", "0 characters"), ("   ", "0 characters"), ("x" * 10_000, "10000")])
def test_a_name_that_is_no_prompt(
    refused: Callable[..., str], folder: Path, tmp_path: Path, name: str, words: str
) -> None:
    (tmp_path / "names.json").write_text(json.dumps({"Ann_Roe": name}))
    line = refused(
        "privacy", "lab-text", "--people", folder, "--names-from", tmp_path / "names.json", "--out", tmp_path / "out"
    )
    assert words in line and "1 to 200 printable characters" in line and len(line) < 300


def test_nothing_that_can_be_read(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "people" / "Ann_Roe").mkdir(parents=True)
    (tmp_path / "people" / "Ann_Roe" / "0.png").write_bytes(b"no image")
    line = refused("privacy", "lab-text", "--people", tmp_path / "people", "--out", tmp_path / "out")
    assert "nobody has 2 photographs" in line and not (tmp_path / "out").exists()


def test_nothing_leaves_the_machine(
    redsam: Callable[..., Any], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real text-prompted model, from its folder to the page, with every way to a network blocked."""
    tiny("lab-text").model.save_pretrained(tmp_path / "model")

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a connection was opened")

    for way in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, way, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    ran = redsam("privacy", tmp_path / "model", "--people", folder, "--out", tmp_path / "out", "--grids", 1)
    assert ran.code == 0, ran.err
    assert "10 names: 0 knows" in ran.out
    written = {p.relative_to(tmp_path / "out").parts[0] for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert written <= {"privacy.json", "privacy.html", "records", ".lock", "lock"}, written


def test_a_model_without_text(refused: Callable[..., str], folder: Path, tmp_path: Path, tiny_folder: Path) -> None:
    assert "takes no text" in refused("privacy", tiny_folder, "--people", folder, "--out", tmp_path / "out")
