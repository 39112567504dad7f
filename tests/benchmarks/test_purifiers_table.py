"""The purifiers' table says who was attacked by someone who knows it, and shows the undefended once."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import pytest
from purifiers_table import DIFFUSION, MARKER, command, markdown

from redsam.studies.defence import ADAPTIVE

ARGS = Namespace(model="lab-b", steps=20, limit=8, sources=["lab2"], diffusion="static", asked=[], eot=4,
                 marker=MARKER)  # fmt: skip


def row(defense: str, **numbers: Any) -> dict[str, Any]:
    return {"data": "bsds_test", "defense": defense, "prompt": "box", "judged": ADAPTIVE, "n_images": 8, **numbers}


@pytest.mark.parametrize("judged", [ADAPTIVE, "static"])
def test_without_an_adaptive_number_there_is_no_evidence(judged: str) -> None:
    rows = [row("none", clean=0.65), row("jpeg", clean=0.64, adaptive=0.45), row("none", clean=0.65)]
    rows.append(row(DIFFUSION[0], clean=0.63, static=0.5) | {"judged": judged})
    told = markdown(rows, ARGS)
    assert told.count("| none |") == 1 and "| 0.640 |" in told and "| 0.450 |" in told
    assert ("no evidence" in told) == (judged != ADAPTIVE)
    assert "`python benchmarks/purifiers_table.py --limit 8 --diffusion static --page docs/defences.md`" in told


def test_the_command_names_what_changes_a_number() -> None:
    told = command(Namespace(**{**vars(ARGS), "asked": [DIFFUSION[0]], "steps": 10, "eot": 1, "diffusion": None,
                              "marker": "other"}))  # fmt: skip
    assert told == (
        f"python benchmarks/purifiers_table.py {DIFFUSION[0]} --limit 8 --steps 10 --eot 1 --marker other "
        "--page docs/defences.md"
    )
