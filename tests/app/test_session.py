"""What a visitor may choose, and one job at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from redsam.app.session import MAX_BYTES, MAX_SIDE, Session, Visitors, photographs
from redsam.data import read_image
from redsam.errors import InputError, UnknownName


def chosen() -> Session:
    session = Session()
    session.choose("coffee")
    return session


def test_bundled_photographs_are_offered_and_no_other_path(tmp_path: Path) -> None:
    assert {"coffee", "coins"} <= set(photographs())
    with pytest.raises(UnknownName):
        Session().choose(str(tmp_path / "secret.jpg"))
    assert chosen().image is not None


@pytest.mark.parametrize(
    ("where", "kind", "written"),
    [
        ({"x": 10.4, "y": 20}, "point", "10,20"),
        ({"x0": 90, "y0": 80, "x1": 10, "y1": 20}, "box", "10,20,90,80"),  # dragged from the lower right
    ],
)
def test_a_click_is_a_point_and_a_drag_a_box(where: dict[str, float], kind: str, written: str) -> None:
    session = chosen()
    session.place(where)
    assert session.prompt is not None and session.prompt.kind == kind
    assert session.written == written
    session.write(session.written)
    assert session.written == written


@pytest.mark.parametrize(
    "where",
    [{}, {"x": "a", "y": 1}, {"x": None, "y": 1}, {"x": float("nan"), "y": 1}, {"x": 1e9, "y": 1},
     {"x0": 5, "y0": 5, "x1": 5.5, "y1": 60}, {"x0": 1, "y0": 1}],
)  # fmt: skip
def test_no_place_is_refused_in_one_line_and_changes_nothing(where: dict[str, float]) -> None:
    session = chosen()
    session.write("10,20")
    with pytest.raises(InputError) as refused:
        session.place(where)
    assert "\n" not in str(refused.value)
    assert session.written == "10,20"


@pytest.mark.parametrize("text", ["", "a,b", "1", "1,2,3", "1,2,3,4,5"])
def test_what_is_typed_must_be_a_prompt(text: str) -> None:
    with pytest.raises(InputError):
        chosen().write(text)


def test_an_upload_is_bounded_and_reduced(tmp_path: Path) -> None:
    session = Session()
    pixels = np.random.default_rng(0).integers(0, 255, size=(900, 1500, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "large.png")
    session.upload(tmp_path / "large.png")
    assert session.image is not None and tuple(session.image.shape) == (3, MAX_SIDE * 900 // 1500, MAX_SIDE)
    assert "1500 × 900" in session.note
    levels = session.image * 255
    assert (levels - levels.round()).abs().max() < 1e-4  # still on the 8-bit lattice
    Image.fromarray(pixels[:50, :60]).save(tmp_path / "small.png")
    session.upload(tmp_path / "small.png")
    assert session.note == "" and (session.image == read_image(tmp_path / "small.png")).all()

    (tmp_path / "huge.png").write_bytes(b"\0" * (MAX_BYTES + 1))
    (tmp_path / "broken.jpg").write_bytes(b"not a photograph")
    for name in ("huge.png", "broken.jpg", "missing.png"):
        with pytest.raises(InputError) as refused:
            session.upload(tmp_path / name)
        assert str(tmp_path) not in str(refused.value)  # where the server keeps uploads is nobody's business


def test_one_job_a_visitor_and_a_new_photograph_stops_it() -> None:
    session = chosen()
    stop = session.begin()
    with pytest.raises(InputError, match="running"):
        session.begin()
    session.choose("coins")
    assert stop.is_set()
    session.end()
    assert not session.begin().is_set()


def test_visitors_are_apart_and_who_leaves_stops() -> None:
    visitors = Visitors()
    one, other = visitors.of("a"), visitors.of("b")
    one.choose("coffee")
    assert other.image is None and visitors.of("a") is one
    stop = one.begin()
    visitors.forget("a")
    assert stop.is_set() and visitors.of("a") is not one
