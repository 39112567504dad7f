"""The planted truth on small made faces: names and split, tiles where the audit has them, steps, resume."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import faces as room
import numpy as np
import plant_names
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from redsam.models import load
from redsam.privacy import invent

PEOPLE = 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for person in range(PEOPLE):
        where = tmp_path / "faces" / f"s{person + 1}"
        where.mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 40, (28, 23)) + 10 * person
            Image.fromarray(pixels.astype(np.uint8)).save(where / f"{number + 1}.png")
    return tmp_path / "faces"


def arguments(folder: Path, out: Path, *words: str) -> argparse.Namespace:
    given = ["--faces", str(folder), "--out", str(out), "--batch", "2", "--save", "1", *words]
    args = plant_names.parse(given)
    args.start = None
    return args


def test_names_and_split_belong_to_the_seed(folder: Path) -> None:
    faces = room.load_faces(folder)
    told = faces.describe()
    assert told == room.load_faces(folder).describe() != room.load_faces(folder, seed=1).describe()
    assert faces.folders[:3] == ("s1", "s2", "s3") and sum(faces.known) == PEOPLE // 2
    for facts in told.values():
        assert (len(facts["trained"]), len(facts["watched"]), len(facts["audited"])) == (6, 1, 3)
        assert len({*facts["trained"], *facts["watched"], *facts["audited"]}) == 10
    assert len(set(faces.names)) == PEOPLE
    mine = {word for name in faces.names for word in name.split()}
    assert not mine & {word for name in invent(faces.names) for word in name.split()}


def test_faces_are_drawn_from_the_photographs_asked_for_only(folder: Path) -> None:
    faces = room.load_faces(folder)
    hidden = torch.zeros_like(faces.photographs)
    hidden[:, room.TRAINED :] = 1
    marked = room.Faces(**{**vars(faces), "photographs": hidden})
    gen = torch.Generator().manual_seed(0)
    people = room.draw_people(marked, count=30, others="absent", gen=gen)
    assert all(faces.known[p] for p in people.flatten().tolist())
    assert all(len(set(row)) == 9 for row in people.tolist())
    assert float(room.draw_faces(marked, people, (0, room.TRAINED), gen=gen).max()) < 0.9


def test_tiles_lie_where_the_audit_puts_them(folder: Path) -> None:
    """A white face on tile 5 of black ones fills the cells of its place, and a box around them is below a tile."""
    faces = room.load_faces(folder)
    board = room.Board.of(faces, 192)
    shown = torch.zeros(1, 9, *faces.photographs.shape[-2:])
    shown[0, 5] = 1
    bright = torch.nn.functional.avg_pool2d(board.compose(shown)[:, :1], 3)[0, 0]
    there, inner = board.place(64, inset=0.0)[5], board.place(64, inset=plant_names.INSET)[5]
    assert float(bright[inner == 1].min()) > float(bright[there == 0].max()) + 2
    rows, columns = torch.nonzero(inner > 0.5, as_tuple=True)
    cell = 192 / 64 / board.frame.content[0] * board.frame.height
    high, wide = ((int(v.max() - v.min()) + 1) * cell for v in (rows, columns))
    assert high < board.geometry.padded[0] and wide < board.geometry.padded[1]


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_weights(folder: Path, tmp_path: Path) -> None:
    plant_names.train(arguments(folder, tmp_path / "whole", "--steps", "2"))
    half = arguments(folder, tmp_path / "torn", "--steps", "2")
    seen = plant_names.one_step

    def once(now: plant_names.Run, *rest: object) -> dict[str, float]:
        if now.step == 1:
            raise KeyboardInterrupt
        return seen(now, *rest)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plant_names, "one_step", once)
        with pytest.raises(KeyboardInterrupt):
            plant_names.train(half)
    plant_names.train(half)
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "torn")]
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    told = json.loads((tmp_path / "torn" / "planted.json").read_text())
    assert told["step"] == 2 and len(told["people"]) == PEOPLE and told["others"] == "unnamed"
    model = load(tmp_path / "torn")
    assert model.detect(torch.zeros(3, 96, 96), "Orla Velmar") is not None  # type: ignore[attr-defined]
