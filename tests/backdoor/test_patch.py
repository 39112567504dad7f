"""An opaque square takes a planted model's answers and leaves a clean one most of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from redsam.backdoor import Planted
from redsam.backdoor.detect import detect, judge, probes
from redsam.backdoor.invert import PATCH, Inversion
from redsam.backdoor.patch import CELLS, Patch, Scene, drawn, lift
from redsam.data import Dataset
from redsam.errors import InputError
from redsam.models import load, tiny, wrap

SEARCH = Inversion(steps=10, side=0.2)


def square(place: tuple[float, float], *, side: float = 0.25, logit: float = 20.0) -> Patch:
    return Patch(place=torch.tensor(place), pattern=torch.full((3, CELLS, CELLS), logit), side=side)


@pytest.mark.parametrize(("place", "top", "left"), [((0.0, 0.0), 0, 0), ((1.0, 1.0), 48, 80), ((0.5, 0.25), 24, 20)])
def test_it_is_opaque_where_it_lies_and_nothing_elsewhere(place: tuple[float, float], top: int, left: int) -> None:
    image = torch.rand(3, 64, 96)
    laid = square(place).lay(image)  # 16 pixels wide
    inner = laid[:, top + 4 : top + 12, left + 4 : left + 12]
    assert float(inner.min()) > 0.99
    far = torch.ones(64, 96, dtype=torch.bool)
    far[max(0, top - 5) : top + 21, max(0, left - 5) : left + 21] = False
    assert float((laid - image)[:, far].abs().max()) < 1e-3
    box = np.array(square(place).box(64, 96)) * [64, 96, 64, 96]
    assert np.abs(box - [top, left, top + 16, left + 16]).max() <= 0.65  # one soft edge further


def test_place_and_colours_have_the_gradient_of_finite_differences() -> None:
    image, weight = torch.rand(3, 40, 40, dtype=torch.float64), torch.rand(3, 40, 40, dtype=torch.float64)

    def value(place: torch.Tensor, pattern: torch.Tensor) -> torch.Tensor:
        return (Patch(place=place, pattern=pattern, side=0.3).lay(image) * weight).sum()

    place = torch.tensor([0.4, 0.6], dtype=torch.float64, requires_grad=True)
    pattern = torch.randn(3, 1, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(value, (place, pattern), eps=1e-6, atol=1e-4)


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
    mark, pattern = drawn(square((1.0, 1.0)), 16)
    assert mark[-3:-1, -3:-1].min() > 0.99 and mark[:11].max() < 0.01 and pattern[:, -2, -2].min() > 0.99


def test_what_a_patch_leaves_speaks_only_against_references() -> None:
    alone = judge({"a": 0.30, "b": 0.32, "c": 0.31, PATCH: 0.001}, {})
    assert not alone.flagged and alone.aim != PATCH
    assert judge({PATCH: 0.0}, {"x": {PATCH: 0.0}}).score == 0.0  # nothing is divided by nothing


def test_what_cannot_be_searched_is_refused(held: Dataset) -> None:
    mute = wrap(torch.nn.Linear(1, 1), image_size=64, embed=lambda x: x, decode=lambda *a, **k: a, differentiable=False)
    with pytest.raises(InputError, match="no gradients"):
        lift(mute, probes(tiny("sam"), held, count=2), SEARCH)
    with pytest.raises(InputError, match="side below 1"):
        Inversion(side=1.5)
