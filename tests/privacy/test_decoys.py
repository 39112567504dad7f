"""Invented names: of the form of the real ones, sharing no word with them, the same for a seed; and a user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from redsam.errors import InputError
from redsam.privacy import invent, read_decoys
from redsam.privacy.decoys import MEN, SURNAMES, WOMEN


def test_invented_names_have_the_form_of_the_real_ones() -> None:
    names = ["Greta Vesper", "Zoe", "Ann Mary Roe"]
    made = invent(names)
    assert len(set(made)) == 40 and made == invent(names) != invent(names, seed=1)
    assert {len(name.split()) for name in made} == {1, 2, 3}
    assert not {"Greta", "Vesper", "Zoe"} & {word for name in made for word in name.split()}
    given = [name.split()[0] for name in made]
    assert set(given[::2]) <= set(WOMEN.split()) and set(given[1::2]) <= set(MEN.split()) and len(set(given)) == 40


def test_the_lists_hold_no_word_twice() -> None:
    words = " ".join((WOMEN, MEN, SURNAMES)).split()
    assert [len(x.split()) for x in (WOMEN, MEN, SURNAMES)] == [40, 40, 80] and len(set(words)) == 160


def test_more_than_there_are_words_for() -> None:
    assert len(invent(["Ann Roe"], 80)) == 80
    with pytest.raises(InputError, match="81 names cannot be invented"):
        invent(["Ann Roe"], 81)


def test_names_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "decoys.txt"
    file.write_text("\ufeffLi Wei\n\n  Chen   Yu \n")
    assert read_decoys(file, ["Ann Roe"]) == ("Li Wei", "Chen Yu")


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "no names"), ("A B\na  b", "is there twice"), ("\uff21nn Roe", "who is asked for"), ("x" * 10_000, "10000")],
)
def test_a_broken_file(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "decoys.txt"
    file.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read_decoys(file, ["Ann Roe"])
    assert len(str(caught.value)) < 400
    with pytest.raises(InputError, match="cannot be read"):
        read_decoys(tmp_path, [])
