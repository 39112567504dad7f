"""UMI's Reptile step and GRAT's update, by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from redsam.attacks import umi_grat
from redsam.attacks.task import Task
from redsam.attacks.umi_grat import UMIGRAT, _spread, robust_term, shuffling
from redsam.attacks.universal import Lesson
from redsam.attacks.universal_training import train
from redsam.models import tiny
from redsam.prompts import point
from redsam.threat import Threat
from tests.attacks.test_universal import sample, samples

EPS = 10 / 255


def lesson(count: int) -> Lesson:
    sam = tiny("sam", image_size=32)
    task = Task(segmenter=sam, clean=sample(1).image[None], prompts=[[]], threat=Threat(eps=EPS), seeds=[3])
    return Lesson(task=task, fit="stretch", count=count)


def test_the_universal_perturbation_follows_by_the_published_rate() -> None:
    attack, turn = UMIGRAT(inner=1), lesson(500)
    delta = attack.begin(8, EPS, torch.Generator().manual_seed(0))
    moved = attack.learn(delta, turn, {}) - delta
    # One inner step is META_STEP; rate eps / (META_STEP * 1 * 500): an epoch in one direction spends eps.
    assert turn.gradients == 1
    assert torch.allclose(moved.abs(), torch.full_like(moved, EPS / 500), atol=1e-7)


def test_it_stops_where_the_features_are_far_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(umi_grat, "ENOUGH", -1.0)
    attack, turn = UMIGRAT(inner=3), lesson(5)
    delta = attack.begin(8, EPS, torch.Generator().manual_seed(0))
    assert torch.equal(attack.learn(delta, turn, {}), delta) and turn.gradients == 1


def test_the_first_step_leaps_to_the_artefact() -> None:
    clean = torch.full((1, 3, 2, 2), 0.5)
    direction = torch.ones(1, 3, 2, 2)
    umi = torch.full((3, 2, 2), 3 / 255)
    state: Any = SimpleNamespace(x=clean, clean=clean, step=0, project=lambda x: x)
    attack = UMIGRAT()
    assert torch.allclose(attack.rule(umi)(direction, state), clean + 2.5 * (-2 / 255) + 3 / 255)
    assert torch.allclose(attack.rule(None)(direction, state), clean + 2.5 * (-2 / 255))
    state.step = 1
    assert torch.allclose(attack.rule(umi)(direction, state), clean - 2 / 255)


def test_steps_are_in_proportion_and_clamped() -> None:
    clean = torch.zeros(1, 1, 1, 4)
    direction = torch.tensor([0.5, -0.25, 3.0, 0.25]).view(1, 1, 1, 4)  # mean size 1
    state: Any = SimpleNamespace(x=clean, clean=clean, step=1)
    moved = UMIGRAT(step_size=1.0).rule(None)(direction, state).flatten()
    assert moved.tolist() == pytest.approx([-0.5, 0.25, -1.0, -0.25])


def test_momentum_is_the_papers() -> None:
    memory: dict[str, torch.Tensor] = {}
    attack = UMIGRAT()
    attack.smooth(torch.full((1, 1, 1, 2), 4.0), memory)
    second = attack.smooth(torch.tensor([1.0, -1.0]).view(1, 1, 1, 2), memory)
    assert second.flatten().tolist() == pytest.approx([1.5, -0.5])


def test_an_artefact_changes_where_grat_goes(tmp_path: Path) -> None:
    sam = tiny("sam", image_size=32)
    train(UMIGRAT(), sam, samples(2), threat=Threat(eps=EPS), out=tmp_path / "umi", epochs=1)
    image, where = sample(7).image[None], [[point(5, 7)]]
    given = UMIGRAT(artefact=str(tmp_path / "umi"), steps=2).run(sam, image, where, threat=Threat(eps=EPS))
    alone = UMIGRAT(steps=2).run(sam, image, where, threat=Threat(eps=EPS))
    assert given.gradients == 2 and not torch.equal(given.images, alone.images)


def test_layers_are_spread_over_the_blocks() -> None:
    assert _spread(12) == (1, 3, 5, 7, 9, 11)
    assert _spread(24) == (3, 7, 11, 15, 19, 23)
    assert _spread(2) == (0, 1) and _spread(1) == (0,)


def test_the_robust_term_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(umi_grat, "SPREAD", 0.0)
    clean = [torch.full((1, 2, 2), 2.0), torch.full((1, 3, 1), 1.0)]
    blocks = [clean[0] + 1, clean[1] - 3]
    found = robust_term(blocks, clean, [torch.Generator().manual_seed(0)])
    assert found.tolist() == pytest.approx([(1 / 2 + 3 / 1) / 2])
    monkeypatch.setattr(umi_grat, "CHOSEN", 1)
    drawn = {round(float(robust_term(blocks, clean, [torch.Generator().manual_seed(s)])), 4) for s in range(20)}
    assert drawn == {0.5, 3.0}


def test_blocks_are_shuffled_three_times_in_ten_and_stay_the_same_pixels() -> None:
    generator, images = torch.Generator().manual_seed(0), torch.rand(1, 3, 6, 8)
    found = [shuffling(generator, images) for _ in range(400)]
    assert 0.23 < sum(f is not None for f in found) / 400 < 0.37
    for shuffle in found:
        if shuffle is not None:
            assert torch.equal(shuffle(images).flatten().sort()[0], images.flatten().sort()[0])
