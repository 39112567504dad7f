"""Attacks as the page sees them, without a browser: every step, both defences, stopping, files."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from redsam import registry
from redsam.app import play as playing
from redsam.app import view
from redsam.app.live import ATTACKS, budget, live, recipe
from redsam.app.play import Choice, Screen, Stage
from redsam.app.session import Session
from redsam.attacks.watch import Look, watching
from redsam.data import read_image
from redsam.defenses.specs import chain
from redsam.errors import InputError
from redsam.metrics import iou
from redsam.models import Segmenter, tiny
from redsam.prompts import point
from redsam.types import to_uint8

SIZE = (40, 56)


@pytest.fixture(scope="module")
def sam() -> Segmenter:
    return tiny("sam", image_size=32)


def picture() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, *SIZE), generator=generator).float() / 255


@pytest.fixture
def session() -> Session:
    made = Session()
    made.image, made.name = picture(), "noise <b>"
    made.place({"x": 20, "y": 15})
    return made


@pytest.fixture
def stage(tiny_folder: Path) -> Stage:
    return Stage(models=[str(tiny_folder)])


def asked(stage: Stage, **changes: object) -> Choice:
    return Choice(**{"model": stage.models[0], "steps": 3, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ATTACKS)
def test_every_offered_attack_shows_each_of_its_steps(name: str, sam: Segmenter) -> None:
    attack = recipe(name, 3)
    moments = list(live(sam, picture(), point(20, 15), attack=attack, threat=budget(8), stop=threading.Event()))
    steps = [m.step for m in moments]
    assert steps == sorted(steps) and steps[0] == 0 and moments[-1].result is not None
    assert len(moments) >= (2 if name == "fgsm" else 4)
    for moment in moments:
        assert int(np.abs(moment.adversarial.astype(int) - moment.clean.astype(int)).max()) <= 8


def test_watching_changes_no_number(sam: Segmenter) -> None:
    attack = registry.create("attack", "pgd", steps=3)
    image = picture()[None]
    alone = attack.run(sam, image, [[point(20, 15)]], threat=budget(8))
    seen: list[Look] = []
    with watching(seen.append):
        watched = attack.run(sam, image, [[point(20, 15)]], threat=budget(8))
    assert torch.equal(alone.images, watched.images)
    assert [look.step for look in seen] == [0, 1, 2]
    assert torch.equal(attack.run(sam, image, [[point(20, 15)]], threat=budget(8)).images, alone.images)
    assert len(seen) == 3, "nobody looks any more"


def test_query_attacks_can_be_watched_and_an_error_ends_them(sam: Segmenter) -> None:
    seen: list[int] = []

    def look(at: Look) -> None:
        seen.append(at.step)
        if at.step == 4:
            raise InputError("enough")

    attack = registry.create("attack", "square", queries=30)
    with pytest.raises(InputError, match="enough"), watching(look):
        attack.run(sam, picture()[None], [[point(20, 15)]], threat=budget(8))
    assert seen == [0, 1, 2, 3, 4]


def test_the_last_moment_is_the_delivered_file(sam: Segmenter) -> None:
    image, prompt = picture(), point(20, 15)
    last = list(live(sam, image, prompt, attack=recipe("pgd", 3), threat=budget(8), stop=threading.Event()))[-1]
    alone = recipe("pgd", 3).run(sam, image[None], [[prompt]], threat=budget(8), seeds=[0])
    assert np.array_equal(last.adversarial, alone.images[0].permute(1, 2, 0).numpy())
    before = sam.predict(image[None], [[prompt]])[0].masks
    after = sam.predict(alone.images.float() / 255, [[prompt]])[0].masks
    assert last.iou == pytest.approx(float(iou(before, after)[0]))
    assert last.result is not None and last.result["iou"] == last.iou


def test_two_defences_beside_each_other_and_their_files(stage: Stage, session: Session, tmp_path: Path) -> None:
    screens = list(stage.play(session, asked(stage, other="jpeg:quality=50"), tmp_path))
    last = screens[-1]
    assert not last.running and not last.wrong and [name for name, _ in last.lanes] == ["none", "jpeg:quality=50"]
    assert "keeps" in last.line
    for pair, (defense, moment) in zip(last.files, last.lanes, strict=True):
        assert pair is not None
        png, told = pair
        assert np.array_equal(np.asarray(Image.open(png)), moment.adversarial)
        document = json.loads(told.read_text())
        assert document["iou"] == moment.iou and document["budget"]["linf_levels"] <= 8
        assert (document["defense"] is None) == (defense == "none")
        assert png.parent == tmp_path and document["file"] == png.name
        seen = to_uint8(read_image(png)).permute(1, 2, 0).numpy()
        assert np.array_equal(seen, moment.adversarial)


def test_stopping_ends_at_once_and_another_may_begin(stage: Stage, session: Session, tmp_path: Path) -> None:
    screens = []
    for screen in stage.play(session, asked(stage, steps=40), tmp_path):
        screens.append(screen)
        if screen.lanes and screen.lanes[0][1].step >= 2:
            session.stop()
    assert screens[-1].line.startswith("Stopped after") and not screens[-1].running
    assert screens[-1].lanes[0][1].step < 10 and screens[-1].files == ()
    assert list(stage.play(session, asked(stage), tmp_path))[-1].files


def test_a_second_job_of_a_visitor_is_refused_and_the_first_goes_on(
    stage: Stage, session: Session, tmp_path: Path
) -> None:
    first = stage.play(session, asked(stage), tmp_path)
    next(first)
    (refused,) = stage.play(session, asked(stage), tmp_path)
    assert refused.wrong and "running" in refused.line
    assert list(first)[-1].files


def test_who_leaves_frees_the_place(stage: Stage, session: Session, tmp_path: Path) -> None:
    threads = threading.active_count()
    stream = stage.play(session, asked(stage, steps=40), tmp_path)
    while not next(stream).lanes:
        pass
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() == threads
    assert list(stage.play(session, asked(stage), tmp_path))[-1].files


def test_attacks_of_others_wait_for_their_turn(stage: Stage, session: Session, tmp_path: Path) -> None:
    first = stage.play(session, asked(stage), tmp_path)
    next(first)
    late = Session()
    late.image, late.name, late.prompt = session.image, "late", session.prompt
    second = stage.play(late, asked(stage), tmp_path)
    assert "comes next" in next(second).line
    late.stop()
    assert list(second)[-1].line.startswith("Stopped")
    assert list(first)[-1].files


@pytest.mark.parametrize(
    "changes",
    [{"attack": "umi-grat"}, {"attack": "nothing"}, {"steps": 0}, {"steps": 10_000}, {"eps": 200},
     {"eps": float("nan")}, {"model": "/etc/passwd"}, {"defense": "diffpure"}, {"other": "../x"}],
)  # fmt: skip
def test_what_is_not_offered_is_refused_in_one_line(
    changes: dict[str, object], stage: Stage, session: Session, tmp_path: Path
) -> None:
    last = list(stage.play(session, asked(stage, **changes), tmp_path))[-1]
    assert last.wrong and last.line and "\n" not in last.line and not last.running
    assert session.begin()  # nothing is left running


def test_an_error_inside_is_one_line_without_its_text(
    stage: Stage, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **options: object) -> None:
        raise RuntimeError("/a/path/of/the/server")

    monkeypatch.setattr(playing, "live", broken)
    last = list(stage.play(session, asked(stage), tmp_path))[-1]
    assert last.wrong and "RuntimeError" in last.line and "/a/path" not in last.line


def test_every_defence_that_is_offered_is_there() -> None:
    for name in playing.DEFENSES[1:]:
        assert len(chain(name)) == 1


def test_pictures_and_words_are_escaped(stage: Stage, session: Session, tmp_path: Path) -> None:
    last = list(stage.play(session, asked(stage), tmp_path))[-1]
    html = view.stage(session) + view.lanes(last, session.prompt) + view.line("<b>\nx", wrong=True)
    assert "<b>x" not in html and "noise <b>" not in html and "noise &lt;b&gt;" in html
    assert "http" not in html.replace("http-equiv", "")
    assert html.count("data:image/webp") >= 6
    assert view.lanes(Screen(), None) == ""
