"""Folders of people, in every state people leave folders in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from redsam.errors import InputError, RedsamError
from redsam.privacy import labels, read_people
from redsam.privacy.labels import salt_of
from redsam.privacy.people import photograph, read_names


def add(root: Path, name: str, *images: Image.Image) -> Path:
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        image.save(folder / f"{number}.png")
    return folder


def noise(seed: int, mode: str = "RGB") -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 16, 3), dtype=np.uint8)).convert(mode)


def test_names_come_from_folders_in_the_order_of_names(tmp_path: Path) -> None:
    add(tmp_path, "Zoe_Ames", noise(0), noise(1))
    add(tmp_path, "anna_Berg", noise(2), noise(3))
    found = read_people(tmp_path)
    assert [p.name for p in found.persons] == ["anna Berg", "Zoe Ames"]
    assert found.tile == (20, 16) and not found.skipped


def test_one_photograph_is_a_recorded_skip(tmp_path: Path) -> None:
    add(tmp_path, "A", noise(0), noise(1))
    add(tmp_path, "B", noise(2))
    found = read_people(tmp_path)
    assert [p.name for p in found.persons] == ["A"]
    assert [s.who for s in found.skipped] == ["B"] and "one photograph" in found.skipped[0].reason


def test_a_broken_file_and_a_copy_are_skipped_without_a_name_in_the_reason(tmp_path: Path) -> None:
    folder = add(tmp_path, "Ann_Roe", noise(0), noise(1), noise(1))
    (folder / "Ann_Roe_9.jpg").write_text("no image")
    found = read_people(tmp_path)
    assert len(found.persons[0].photographs) == 2
    reasons = " ".join(s.reason for s in found.skipped)
    assert "photograph 3: a copy" in reasons and "photograph 4: not an image" in reasons
    assert "Ann" not in reasons and str(tmp_path) not in reasons


@pytest.mark.parametrize("second", ["ann_roe", "\uff21nn Roe", "Ann  Roe"])
def test_two_people_of_one_name_are_refused(tmp_path: Path, second: str) -> None:
    add(tmp_path, "Ann_Roe", noise(0), noise(1))
    add(tmp_path, second, noise(2), noise(3))
    with pytest.raises(InputError, match="two people with one name") as caught:
        read_people(tmp_path)
    assert caught.value.hint and "\n" not in str(caught.value)


def test_one_photograph_under_two_names_is_refused(tmp_path: Path) -> None:
    add(tmp_path, "A", noise(0), noise(1))
    add(tmp_path, "B", noise(1), noise(2))
    with pytest.raises(InputError, match="same photograph under two names"):
        read_people(tmp_path)


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "1"])
def test_grey_and_alpha_become_rgb(tmp_path: Path, mode: str) -> None:
    folder = add(tmp_path, "A", noise(0, mode), noise(1, mode))
    tile = photograph(read_people(tmp_path).persons[0].photographs[0], (10, 10))
    assert tile.shape == (3, 10, 10) and tile.dtype == torch.uint8 and folder.is_dir()


def test_a_photograph_is_cropped_in_the_middle_and_not_squeezed(tmp_path: Path) -> None:
    wide = np.zeros((20, 60, 3), dtype=np.uint8)
    wide[:, 20:40] = 200
    path = add(tmp_path, "A", Image.fromarray(wide)) / "0.png"
    assert bool((photograph(path, (10, 10)) == 200).all())


def test_nothing_to_read(tmp_path: Path) -> None:
    for where, words in ((tmp_path / "nowhere", "cannot be read"), (tmp_path, "no folders")):
        with pytest.raises(InputError, match=words):
            read_people(where)
    add(tmp_path, "A")
    with pytest.raises(InputError, match="nobody has 2 photographs"):
        read_people(tmp_path)


@pytest.mark.parametrize("name", ["", "x" * 10_000, "a\u0007b"])
def test_a_name_that_cannot_be_asked(tmp_path: Path, name: str) -> None:
    add(tmp_path, "s1", noise(0), noise(1))
    (tmp_path / "names.json").write_text(json.dumps({"s1": name}))
    with pytest.raises(InputError, match="cannot be asked as a name") as caught:
        read_people(tmp_path, names=tmp_path / "names.json")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("text", ['{"s1": "Ann Roe"}', "s1\tAnn Roe\n\n", "s1,Ann Roe", "s1 = Ann Roe"])
def test_names_from_a_file(tmp_path: Path, text: str) -> None:
    add(tmp_path, "s1", noise(0), noise(1))
    add(tmp_path, "s2", noise(2), noise(3))
    (tmp_path / "names").write_text(text)
    found = read_people(tmp_path, names=tmp_path / "names")
    assert [p.name for p in found.persons] == ["Ann Roe"]
    assert [(s.who, s.reason) for s in found.skipped] == [("s2", "no name in the file of names")]


@pytest.mark.parametrize("text", ["", "s1", "s9\tAnn", '{"s1": 3}', '{"s1"', "s1\tA\ns1\tB"])
def test_a_broken_file_of_names(tmp_path: Path, text: str) -> None:
    (tmp_path / "names").write_text(text)
    with pytest.raises(RedsamError):
        read_names(tmp_path / "names", ["s1"])


def test_labels_hide_names_and_stay_apart(tmp_path: Path) -> None:
    names = ["Ann Roe", "Ada Rye", "Bo"]
    assert labels(names, "initials") == ["A. R.", "A. R. 2", "B."]
    hashed = labels(names, "hashes", salt=salt_of(tmp_path))
    assert hashed == labels(names, "hashes", salt=salt_of(tmp_path)) and len(set(hashed)) == 3
    assert hashed != labels(names, "hashes", salt=b"other")
    assert labels(names, "names") == names
    assert (tmp_path / "salt").stat().st_mode & 0o077 == 0
