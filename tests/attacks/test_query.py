"""Score attacks: what they ask, keep and pay, by hand on the toy; models that give no gradient."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from redsam import registry
from redsam.attacks.ebad import EBAD, Ensemble
from redsam.attacks.loop import Counter, Evaluation, State
from redsam.attacks.pgd import PGD
from redsam.attacks.prompt_shift_gradient import PromptShiftGradient
from redsam.attacks.query import QueryAttack, climb
from redsam.attacks.simba import SimBA, basis_vectors
from redsam.attacks.square import Square
from redsam.attacks.task import Task
from redsam.errors import InputError
from redsam.models import Segmenter, tiny, wrap
from redsam.prompts import Prompt, point
from redsam.seeds import stable_seed
from redsam.threat import Threat
from redsam.types import from_uint8

SIDE = 8
FREE = Threat(norm="l2", eps=50.0)  # nothing in these pictures reaches it


def grey(count: int = 1, level: int = 128) -> Tensor:
    return from_uint8(torch.full((count, 3, SIDE, SIDE), level, dtype=torch.uint8))


def prompts(count: int = 1) -> list[list[Prompt]]:
    return [[point(3, 3)] for _ in range(count)]


@pytest.fixture
def toy(toy_class: Any) -> Segmenter:
    """Logit of a pixel = 5 * (0.5 r - 0.25 g + 0 b + 0.1): vanish pulls red down, green up and cannot use blue."""
    return toy_class(side=SIDE, weight=(0.5, -0.25, 0.0), bias=0.1, gain=5.0)  # type: ignore[no-any-return]


def test_simba_accepts_exactly_the_coordinates_found_by_hand(toy: Segmenter) -> None:
    queries, step = 60, 10 / 255
    result = SimBA(basis="pixel", step=step, queries=queries).run(
        toy, grey(), prompts(), threat=replace(FREE, queries=queries), seeds=[7]
    )
    order = torch.randperm(3 * SIDE * SIDE, generator=torch.Generator().manual_seed(stable_seed(7, "queries")))
    expected, spent, accepted = torch.full((3 * SIDE * SIDE,), 128), 1, 0
    for value in order.tolist():
        channel = value // (SIDE * SIDE)
        cost = {0: 1, 1: 2, 2: 2}[channel]  # red falls at once, green rises at the second try, blue never helps
        if spent + cost > queries:
            break
        spent += cost
        accepted += channel < 2
        expected[value] += {0: -10, 1: 10, 2: 0}[channel]
    assert torch.equal(result.images[0].flatten().int(), expected.int())
    assert accepted > 20 and result.budget[0].l2 == pytest.approx(step * math.sqrt(accepted), rel=1e-6)
    assert result.queries == (queries,) and result.forwards == queries and result.gradients == 0
    assert (result.losses.diff(dim=0) <= 0).all() and int((result.losses.diff(dim=0) < 0).sum()) in (
        accepted,
        accepted + 1,
    )


def test_cosines_are_orthonormal() -> None:
    like = torch.zeros(3 * 5 * 4, 3, 5, 4)
    vectors = basis_vectors("dct", torch.arange(60), like).flatten(1)
    assert torch.allclose(vectors @ vectors.T, torch.eye(60), atol=1e-5)
    lowest = basis_vectors("dct", torch.arange(3), torch.zeros(3, 3, 5, 4), share=0.2)
    assert torch.allclose(lowest, torch.eye(3)[:, :, None, None].expand(3, 3, 5, 4) / math.sqrt(20))


def test_simba_with_cosines_takes_steps_of_the_same_length(toy: Segmenter) -> None:
    generator = torch.Generator().manual_seed(1)  # on a flat picture no wave has a slope
    image = from_uint8(torch.randint(90, 166, (1, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8))
    result = SimBA(step=0.1, freq_dims=0.5, queries=90).run(toy, image, prompts(), threat=FREE)
    accepted = int((result.losses.diff(dim=0) < 0).sum())
    assert accepted >= 4 and result.budget[0].l2 == pytest.approx(0.1 * math.sqrt(accepted), rel=0.02)  # 8-bit rounding


def test_pixels_outside_the_region_cost_no_query(toy: Segmenter) -> None:
    """The upper half is the object; all but blue values of it are accepted."""
    image = grey()
    image[:, 0, 4:] = 0.0
    image[:, 1, 4:] = 1.0
    result = SimBA(basis="pixel", step=5 / 255, queries=1 + 5 * SIDE * SIDE // 2).run(
        toy, image, prompts(), threat=replace(FREE, region="object")
    )
    assert result.budget[0].l0 == SIDE * SIDE // 2  # 1 + 2 + 2 queries for the three values of every pixel
    assert int((result.losses.diff(dim=0) < 0).sum()) == SIDE * SIDE


@pytest.mark.parametrize("attack", [SimBA(queries=40), Square(queries=40)], ids=["simba", "square"])
def test_images_that_reached_their_goal_stop_paying(toy_class: Any, attack: QueryAttack) -> None:
    toy = toy_class(side=SIDE)  # mask where grey > 0.5
    images = torch.cat([grey(level=100), grey(level=131), grey(level=250)])
    empty = [torch.ones(1, SIDE, SIDE, dtype=torch.bool)] * 3
    result = replace(attack, stop_at=0.0).run(toy, images, prompts(3), threat=Threat(eps=8 / 255), reference=empty)
    assert result.queries[0] == 1 and 1 < result.queries[1] <= 40 and result.queries[2] == 40
    assert toy.encoded == sum(result.queries) == result.forwards
    assert result.losses[1:, 0].isnan().all() and not result.losses[:, 2].isnan().any()
    assert result.steps == tuple(n - 1 for n in result.queries)


def test_the_threats_own_limit_holds(toy: Segmenter) -> None:
    result = Square(queries=100).run(toy, grey(), prompts(), threat=Threat(queries=9, knowledge="score"))
    assert result.queries == (9,) and len(result.losses) == 9
    with pytest.raises(InputError, match="no look"):
        Square(queries=0).run(toy, grey(), prompts(), threat=Threat())


def test_square_reaches_the_corner_of_the_ball(toy: Segmenter) -> None:
    result = Square(queries=400).run(toy, grey(), prompts(), threat=Threat(eps=8 / 255))
    change = result.images[0].int() - 128
    assert (change[0] == -8).float().mean() > 0.9 and (change[1] == 8).float().mean() > 0.9


# --- EBAD ------------------------------------------------------------------------------------------------------------
def test_ebad_counts_both_sides_and_prefers_the_surrogate_that_helps(tiny_folder: Path, tmp_path: Path) -> None:
    victim, other = tiny("sam", image_size=32), tmp_path / "other"
    tiny("sam", seed=3).model.save_pretrained(other)
    generator = torch.Generator().manual_seed(0)
    image = from_uint8(torch.randint(0, 256, (1, 3, 24, 24), generator=generator, dtype=torch.uint8))
    attack = EBAD(queries=5, iterations=2, surrogates=(str(tiny_folder), str(other)))
    result = attack.run(victim, image, prompts(), threat=Threat(eps=8 / 255))
    assert result.queries == (5,) and result.gradients == 5 * 2 * 2  # queries x iterations x surrogates
    assert result.forwards == 5 + 20 + 2  # and one clean look of each surrogate, to balance them
    assert (result.losses.diff(dim=0) <= 0).all() and result.budget[0].linf == 8 / 255


def test_ebad_raises_then_lowers_one_weight_in_turn_and_halves_when_stuck() -> None:
    """Two surrogates: weights start at 1/2, the step at 1/40."""

    def surrogate(slope: float) -> Counter:
        def evaluate(images: Tensor, active: Any, progress: float) -> Evaluation:
            loss = slope * images.flatten(1).sum(1)
            return Evaluation(loss, loss.detach())

        return Counter(evaluate=evaluate)

    clean, one = grey(), torch.zeros(1)
    state = State(
        threat=Threat(eps=8 / 255), steps=20, clean=clean, region=None, x=clean, best=clean, best_rank=one, rank=one,
        generators=[], active=[0], rows=torch.arange(1),
    )  # fmt: skip
    craft = Ensemble(evaluators=[surrogate(1.0), surrogate(-2.0)], iterations=1)
    craft.start(state)
    tried = []
    for state.step in range(1, 13):
        craft.propose(state)
        tried.append([round(v * 1000) for v in (state.memory["tried"] - 0.5).flatten().tolist()])
        craft.learn(state, torch.tensor([state.step == 9]))
    turn = [[25, 0], [-25, 0], [0, 25], [0, -25]]
    # Patience ends with the second round; then the ninth query is kept, and the lowered weight starts from before it.
    assert tried == [*turn, *turn, [12, 0], [-12, 0], [12, 12], [12, -12]]


class Walk:
    """A proposer whose candidate number n is n levels brighter."""

    def start(self, state: State) -> Tensor:
        return state.clean

    def propose(self, state: State) -> Tensor:
        return state.clean + state.step / 255

    def learn(self, state: State, better: Tensor) -> None: ...


def test_a_reached_goal_is_delivered_though_its_rank_is_worse(toy: Segmenter) -> None:
    def evaluate(images: Tensor, active: Any, progress: float) -> Evaluation:
        rank = images.flatten(1).sum(1)  # every candidate ranks worse than the one before
        level = ((images[:, 0, 0, 0] * 255).round() - 128).int()
        return Evaluation(rank, rank, torch.tensor([i == 0 for i in active]) & (level == 3))

    task = Task(segmenter=toy, clean=grey(2), prompts=prompts(2), threat=Threat(eps=8 / 255), seeds=[0, 1])
    trace = climb(evaluate, task, Walk(), queries=6)
    assert trace.queries == (4, 6)
    assert torch.equal((trace.images * 255).round()[:, 0, 0, 0], torch.tensor([131.0, 128.0]))


def test_ebad_refuses_the_victim_as_its_own_surrogate(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="itself"):
        EBAD(surrogates=(str(tiny_folder),)).run(tiny("sam"), grey(), prompts(), threat=Threat())
    monkeypatch.setattr("redsam.attacks.ebad.lab_names", lambda **_: [str(tiny_folder)])
    with pytest.raises(InputError, match="no bundled model differs"):
        EBAD().run(tiny("sam"), grey(), prompts(), threat=Threat())


# --- models without gradients ----------------------------------------------------------------------------------------
def blind_model(*, says_so: bool) -> Segmenter:
    """A model that answers and has no gradient, which it admits or not."""

    def decode(features: Tensor, *, multimask: bool, **_: Any) -> tuple[Tensor, Tensor]:
        count = 3 if multimask else 1
        return features.repeat(1, count, 1, 1), torch.ones(len(features), count)

    return wrap(
        nn.Linear(1, 1), image_size=SIDE, kind="stretch", mean=(0, 0, 0), std=(1, 1, 1), differentiable=not says_so,
        embed=lambda x: 10 * (x.mean(1, keepdim=True) - 0.5).detach(), decode=decode, name="service",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["pgd", "fgsm-star", "figa", "jsma", "prompt-shift-gradient"])
def test_a_model_without_gradients_is_refused_with_what_works(name: str) -> None:
    attack = registry.create("attack", name)
    threat = Threat(norm=registry.get("attack", name).meta["norms"][-1], eps=0.1)
    with pytest.raises(InputError, match="service gives none") as caught:
        attack.run(blind_model(says_so=True), grey(), prompts(), threat=threat)
    assert all(other in caught.value.hint for other in ("ebad", "simba", "square"))


@pytest.mark.parametrize("attack", [SimBA(queries=30), Square(queries=30)], ids=["simba", "square"])
def test_score_attacks_run_on_it(attack: QueryAttack) -> None:
    result = attack.run(blind_model(says_so=True), grey(), prompts(), threat=Threat(knowledge="score"))
    assert result.losses[-1, 0] < result.losses[0, 0] and result.gradients == 0


def test_a_model_that_detaches_without_saying_so_is_refused_too() -> None:
    with pytest.raises(InputError, match="no gradient with regard to the image"):
        PGD().run(blind_model(says_so=False), grey(), prompts(), threat=Threat())
    moved = PromptShiftGradient(steps=2).run(
        blind_model(says_so=False), grey(), prompts(), threat=Threat(norm="shift", eps=2)
    )
    assert moved.flags == ("zero gradient at the first step",)
