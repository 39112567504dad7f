"""Invented names that are asked beside the real ones: what a name does of which the model knows nothing.

The error rate of "knows" rests on them (see `singling`), so they must be as likely as an unknown real name to fit a
face by accident. They have the form of the real names (as many words as one of them, drawn at random), every other one
is a woman's name, and none shares a word with a real one. They are Latin and of mixed European origin: for people who
are called otherwise, give names of your own.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import torch

from redsam.errors import InputError
from redsam.privacy.people import LONGEST_NAME, fold
from redsam.seeds import generator

DECOYS = 40
# fmt: off
WOMEN = (
    "Adela Agneta Alba Alina Amelie Anouk Asta Aurelia Beatrix Bettina Birgit Blanka Carla Celine Chiara Clio Dagmar "
    "Dalia Daria Edith Elena Elfriede Eloise Emilia Erika Estelle Eva Flora Freya Gerda Gisela Greta Hedda Helga "
    "Henrike Imke Irena Ivana Jitka Josefine"
)
MEN = (
    "Albin Aldo Alfons Anton Arvid Axel Bastian Bernard Bjarne Boris Bruno Caspar Cedric Claus Dario Detlef Dimitri "
    "Edgar Egon Elias Emil Enzo Erwin Fabian Felix Florian Franz Georg Gerard Gregor Gustav Harald Hektor Henrik Hugo "
    "Ignaz Igor Ivar Jakob Jonas"
)
SURNAMES = (  # invented, so that no pair is a person of note
    "Abelmar Ackstedt Aldermoor Ambrecht Andelin Arvenny Ashgrove Barrowin Belkamp Bendorff Birkwell Blomgard Bolvari "
    "Bramstone Bresk Calderin Carnoway Castrello Cherwick Clovendale Corvane Dahlmark Darnov Delvigne Dornbach Dunwell "
    "Eberlund Eckhaven Elmsford Engstad Fairmoor Falkenby Ferrande Fintorp Forsgate Galvany Garrick Gellern Glenmoss "
    "Grevold Haldane Harwick Heidern Hollvik Hornby Isenfeld Jarlow Kalvert Karsund Kettwig Klarholm Krasnel Lambrook "
    "Larsted Leverin Lindhagen Lovasz Marbeck Medlund Mirowen Moldavin Nerholt Norcross Oberlin Ollenby Pardoe Pelham "
    "Pravik Radleigh Ravenel Rosendal Rudnov Saldern Selwyn Stavrin Tarnow Thorsby Ulmen Vesper Wendlow"
)
# fmt: on


def invent(names: Sequence[str], count: int = DECOYS, *, seed: int = 0) -> tuple[str, ...]:
    """`count` decoys for the people called `names`. Raises InputError when there are not enough words."""
    if count < 1:
        return ()
    taken = {word for name in names for word in fold(name).split()}
    g = generator("privacy decoys", seed)

    def free(words: str) -> list[str]:
        kept = [word for word in words.split() if fold(word) not in taken]
        return [kept[i] for i in torch.randperm(len(kept), generator=g).tolist()]

    women, men, last = free(WOMEN), free(MEN), free(SURNAMES)
    if count > min(2 * len(women), 2 * len(men), len(last)):
        raise InputError(
            f"{count} names cannot be invented beside these people's.", hint="Give names of your own: --decoys FILE"
        )
    forms = [len(names[int(i)].split()) for i in torch.randint(len(names), (count,), generator=g)]
    made = []
    for number, words in enumerate(forms):
        own, k = (women, men)[number % 2], number // 2
        middle = [own[(k + 1 + extra) % len(own)] for extra in range(words - 2)]
        made.append(" ".join([own[k], *middle, *([last[number]] if words > 1 else [])]))
    return tuple(made)


def read_decoys(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    """A file's lines, one name each. Raises InputError: no text, a name twice, one of a person who is asked for."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read as text.", hint="Give a file with an invented name a line."
        ) from error
    found: dict[str, str] = {}
    people = {fold(name) for name in names}
    for number, line in enumerate(lines, start=1):
        name = " ".join(unicodedata.normalize("NFC", line).split())
        if not name:
            continue
        if len(name) > LONGEST_NAME or not name.isprintable():
            raise InputError(f"{path}, line {number}: cannot be asked as a name ({len(name)} characters).")
        if fold(name) in people or fold(name) in found:
            why = "is a person who is asked for" if fold(name) in people else "is there twice"
            raise InputError(f"{path}, line {number}: this name {why}.", hint="Give names of nobody in the folder.")
        found[fold(name)] = name
    if not found:
        raise InputError(f"{path}: there are no names in it.", hint="Give a file with an invented name a line.")
    return tuple(found.values())
