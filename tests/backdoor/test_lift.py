"""An opaque square takes a planted model's answers and leaves a clean one most of them."""

from __future__ import annotations

import pytest
import torch

from redsam.backdoor import Planted
from redsam.backdoor.detect import detect, judge, probes
from redsam.backdoor.invert import PATCH, Inversion
from redsam.backdoor.lift import Scene, lift
from redsam.data import Dataset
from redsam.errors import InputError
from redsam.models import load, tiny, wrap
from tests.backdoor.test_patch import square

SEARCH = Inversion(steps=10, side=0.2)


def test_what_is_kept_by_hand(held: Dataset) -> None:
    """Answers written by hand: kept whole, lost whole, and hidden by the square, which counts as kept."""
    model = tiny("sam")
    scene = Scene.of(model, probes(model, held, count=2))
    clean = torch.zeros_like(scene.clean)
    clean[:, 2:6, 2:6] = 1
    scene = Scene(**{**vars(scene), "clean": clean, "open": torch.ones(len(clean), dtype=torch.bool)})
    logits, corner, over = clean * 10 - 5, square((1.0, 1.0)), square((0.0, 0.0), side=0.5)
    assert scene.kept(logits, corner, soft=False).tolist() == [1.0] * len(clean)
    assert scene.kept(-logits, corner, soft=False).tolist() == [0.0] * len(clean)
    half = logits.clone()
    half[:, 2:4] = -5
    assert scene.kept(half, corner, soft=False).tolist() == [0.5] * len(clean)
    assert scene.kept(-logits, over, soft=False).tolist() == [1.0] * len(clean)


def test_a_planted_model_is_flagged_and_its_clean_twin_is_not(badsam: Planted, twin: Planted, held: Dataset) -> None:
    planted, clean = load(badsam.folder, name="planted"), load(twin.folder, name="twin")
    found = detect(planted, held, clean=[clean], images=4, aims=(PATCH,), inversion=SEARCH)
    assert found.verdict.flagged and found.verdict.aim == PATCH
    assert found.found[0].reached > 0.5 and "of the answers kept" in str(found.found[0])
    back = detect(clean, held, references={"planted": found.sizes}, images=4, aims=(PATCH,), inversion=SEARCH)
    assert not back.verdict.flagged


def test_it_repeats_and_leaves_the_model_alone(held: Dataset) -> None:
    model = tiny("sam")
    one, other = (lift(model, probes(model, held, count=2), Inversion(steps=2)) for _ in range(2))
    assert one.size == other.size and torch.equal(one.pattern, other.pattern)
    assert not any(p.requires_grad or p.grad is not None for p in model.model.parameters())


def test_what_a_patch_leaves_speaks_only_against_references() -> None:
    alone = judge({"a": 0.30, "b": 0.32, "c": 0.31, PATCH: 0.001}, {})
    assert not alone.flagged and alone.aim != PATCH
    assert judge({PATCH: 0.0}, {"x": {PATCH: 0.0}}).score == 0.0  # nothing is divided by nothing


def test_what_cannot_be_searched_is_refused(held: Dataset) -> None:
    mute = wrap(torch.nn.Linear(1, 1), image_size=64, embed=lambda x: x, decode=lambda *a, **k: a, differentiable=False)
    with pytest.raises(InputError, match="no gradients"):
        lift(mute, probes(tiny("sam"), held, count=2), SEARCH)
    with pytest.raises(InputError, match="three aims"):  # before anything is searched
        detect(mute, held, aims=(PATCH,))
    with pytest.raises(InputError, match="side below 1"):
        Inversion(side=1.5)
