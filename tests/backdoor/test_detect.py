"""Detection tells a planted tiny model from a clean one, and judges by its rules."""

from __future__ import annotations

import pytest
import torch

from redsam.backdoor import Planted, Poison
from redsam.backdoor.detect import detect, judge, probes
from redsam.backdoor.invert import AIMS, Goal, Inversion, invert
from redsam.backdoor.strip import Strip, entropies, separate
from redsam.data import Dataset
from redsam.errors import InputError
from redsam.models import load, tiny, wrap
from tests.backdoor.conftest import TRIGGER

SEARCH = Inversion(steps=30)


def test_the_planted_model_is_flagged_and_its_clean_twin_is_not(badsam: Planted, twin: Planted, held: Dataset) -> None:
    planted, clean = load(badsam.folder, name="planted"), load(twin.folder, name="twin")
    aims = ("empty", "bottom-right", "top-left")
    found = detect(planted, held, clean=[clean], poison=Poison(trigger=TRIGGER), images=4, aims=aims,
                   inversion=SEARCH, superimpose=Strip(overlays=6), strip_images=6)  # fmt: skip
    assert found.verdict.flagged and found.verdict.score < 0.5
    # For the attacker's own aim it is small, and lies where the trigger does.
    assert found.sizes["bottom-right"] < 0.5 * found.references["twin"]["bottom-right"]
    mark = next(f.mark for f in found.found if f.aim == "bottom-right")
    assert mark[-4:, -4:].mean() > 2 * mark.mean()
    back = detect(clean, held, references={"planted": found.sizes}, images=4, aims=aims, inversion=SEARCH)
    assert not back.verdict.flagged and back.strip is None
    assert found.strip is not None and found.strip.auroc > 0.7
    told = found.to_dict()
    assert told["references"]["twin"] == back.sizes and [f["aim"] for f in told["found"]] == list(aims)


def test_verdicts_by_hand() -> None:
    references = {"a": {"empty": 0.4, "same": 0.2}, "b": {"empty": 0.3, "same": 0.5}}
    bad = judge({"empty": 0.3, "same": 0.08}, references)
    assert (bad.flagged, bad.aim, bad.rule) == (True, "same", "references") and bad.score == pytest.approx(0.4)
    assert not judge({"empty": 0.16, "same": 0.11}, references).flagged
    alone = judge({"a": 0.30, "b": 0.32, "c": 0.31, "d": 0.29, "e": 0.02}, {})
    assert alone.flagged and alone.aim == "e" and "own" in alone.rule
    assert not judge({"a": 0.30, "b": 0.30, "c": 0.30, "d": 0.31}, {}).flagged
    with pytest.raises(InputError, match="three aims"):
        judge({"a": 0.1, "b": 0.2}, {})
    with pytest.raises(InputError, match="other aims"):
        judge({"a": 0.1}, {"x": {"b": 0.1}})


@pytest.mark.parametrize("aim", AIMS)
def test_every_aim_is_known_when_it_is_reached(aim: str) -> None:
    """Answers drawn by hand, in a 64-pixel frame of 16 x 16 logits."""
    model = tiny("sam")
    frame = model.frame(64, 64)
    before = torch.full((2, 16, 16), -5.0)
    before[0, 6:10, 2:5], before[1, 1:4, 7:9] = 5.0, 5.0  # no place holds either
    goal = Goal.of(aim, before, [frame, frame])
    assert goal.open.all() and goal.reached(before) == 0.0
    made = torch.full((2, 16, 16), -5.0)
    place = {
        "bottom-right": (12, 12),
        "bottom-left": (12, 1),
        "top-right": (1, 12),
        "top-left": (1, 1),
        "middle": (7, 7),
    }
    if aim == "whole":
        made[:] = 5.0
    elif aim == "same":
        made[:, 4:6, 4:6] = 5.0
    elif aim in place:
        y, x = place[aim]
        made[:, y : y + 2, x : x + 2] = 5.0
    assert goal.reached(made) == 1.0 and float(goal.loss(made)) < float(goal.loss(before))


def test_what_cannot_be_searched_is_refused(held: Dataset) -> None:
    model = tiny("sam")
    samples = probes(model, held, count=2)
    with pytest.raises(InputError, match="no aim 'left'"):
        invert(model, samples, "left", SEARCH)
    mute = wrap(torch.nn.Linear(1, 1), image_size=64, embed=lambda x: x, decode=lambda *a, **k: a, differentiable=False)
    with pytest.raises(InputError, match="no gradients"):
        invert(mute, samples, "empty", SEARCH)
    with pytest.raises(InputError):
        Inversion(steps=0)
    with pytest.raises(InputError, match="2 overlays"):
        Strip(overlays=1)
    with pytest.raises(InputError, match="there are none"):
        entropies(model, samples[0], [samples[1].image], Strip())


def test_a_search_repeats(held: Dataset) -> None:
    model = tiny("sam")
    samples = probes(model, held, count=2)
    one, other = (invert(model, samples, "same", Inversion(steps=3)) for _ in range(2))
    assert one.size == other.size and torch.equal(one.mark, other.mark)
    assert not any(p.requires_grad or p.grad is not None for p in model.model.parameters())


def test_separation_by_hand() -> None:
    perfect = separate([0.5, 0.6, 0.7, 0.8], [0.1, 0.2])
    assert (perfect.auroc, perfect.caught, perfect.clean, perfect.triggered) == (1.0, 1.0, 4, 2)
    assert separate([0.5, 0.5], [0.5, 0.5]).auroc == 0.5
    with pytest.raises(InputError):
        separate([], [0.1])


def test_entropy_is_zero_for_an_answer_that_never_changes(held: Dataset) -> None:
    model = tiny("sam")
    samples = probes(model, held, count=3)
    same = [samples[1].image] * 4
    assert entropies(model, samples[0], same, Strip(overlays=4)) == [0.0, 0.0]
    values = entropies(model, samples[0], [s.image for s in samples[1:]], Strip(overlays=2))
    assert all(0 <= v <= 1 for v in values)
