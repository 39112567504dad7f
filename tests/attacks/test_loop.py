"""The loop and its parts on losses whose minimum is known in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from redsam.attacks.apgd import APGD, _judge, checkpoints
from redsam.attacks.loop import FLAT, Evaluate, Evaluation, Parts, State, Trace, descend
from redsam.attacks.parts import fixed_step, given, momentum, steepest, uniform, zero
from redsam.threat import Threat
from redsam.types import from_uint8

SHAPE = (3, 6, 6)


def pictures(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return from_uint8(torch.randint(40, 216, (count, *SHAPE), generator=generator, dtype=torch.uint8))


WEIGHTS = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))


def linear(images: Tensor, active: Sequence[int], progress: float) -> Evaluation:
    loss = (images * WEIGHTS).flatten(1).sum(1)
    return Evaluation(loss, loss.detach())


def go(evaluate: Evaluate, clean: Tensor, threat: Threat, parts: Parts, **rest: object) -> Trace:
    seeds = rest.pop("seeds", list(range(len(clean))))
    return descend(evaluate, clean, threat=threat, parts=parts, seeds=seeds, **rest)  # type: ignore[arg-type]


def pgd(threat: Threat, steps: int = 40, **rest: object) -> Parts:
    return Parts(**({"steps": steps, "start": uniform, "rule": fixed_step(threat.eps / 4)} | rest))  # type: ignore[arg-type]


def test_a_linear_loss_ends_in_the_corner_of_the_linf_ball() -> None:
    clean, threat = pictures(3), Threat(eps=8 / 255)
    trace = go(linear, clean, threat, pgd(threat))
    assert torch.allclose(trace.images, clean - 8 / 255 * WEIGHTS.sign(), atol=1e-6)
    assert trace.losses.shape == (41, 3) and trace.steps == (40, 40, 40)
    assert (trace.gradients, trace.forwards) == (120, 123)


def test_a_linear_loss_ends_on_the_l2_sphere_along_the_gradient() -> None:
    clean, threat = pictures(2), Threat(norm="l2", eps=0.5)
    trace = go(linear, clean, threat, pgd(threat, steps=60))
    assert torch.allclose(trace.images, clean - 0.5 * WEIGHTS / WEIGHTS.norm(), atol=2e-4)


def test_auto_pgd_finds_both_corners_too() -> None:
    clean = pictures(2)
    for threat, best in (
        (Threat(eps=8 / 255), 8 / 255 * WEIGHTS.sign()),
        (Threat(norm="l2", eps=0.5), 0.5 * WEIGHTS / WEIGHTS.norm()),
    ):
        trace = go(linear, clean, threat, APGD(steps=40).parts(threat))
        assert torch.allclose(trace.images, clean - best, atol=1e-4)


def test_auto_pgd_halves_its_way_into_a_narrow_minimum_where_fixed_steps_rattle() -> None:
    clean, threat = pictures(2), Threat(eps=8 / 255)
    goal = clean + 0.0123 * WEIGHTS.sign()  # inside the ball, not on the grid of steps

    def bowl(images: Tensor, active: Sequence[int], progress: float) -> Evaluation:
        loss = (images - goal[list(active)]).square().flatten(1).sum(1)
        return Evaluation(loss, loss.detach())

    auto = go(bowl, clean, threat, APGD(steps=100).parts(threat))
    fixed = go(bowl, clean, threat, pgd(threat, steps=100))
    assert float((auto.images - goal).abs().max()) < 1e-3
    assert (auto.losses[-1] < fixed.losses.nan_to_num(1e9).min(0).values / 10).all()


def test_checkpoints_are_those_of_the_paper() -> None:
    assert list(checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert list(checkpoints(10)) == [2, 3, 4, 5, 6, 7, 8, 9]


def test_auto_pgd_keeps_a_quarter_of_its_last_move() -> None:
    """A gradient that turns round after one step: x1 = -eps u, then x2 = x1 + 0.75 * 2 eps u - 0.25 * eps u."""
    clean, threat, unit = pictures(1), Threat(norm="l2", eps=0.4), WEIGHTS / WEIGHTS.norm()
    seen: list[Tensor] = []

    def turning(images: Tensor, active: Sequence[int], progress: float) -> Evaluation:
        seen.append(images.detach())
        loss = (images * unit).flatten(1).sum(1) * (1 if len(seen) == 1 else -1)
        return Evaluation(loss, loss.detach())

    go(turning, clean, threat, replace(APGD(steps=10).parts(threat), start=zero))
    assert torch.allclose(seen[1] - clean, -0.4 * unit, atol=1e-6)
    assert torch.allclose(seen[2] - clean, 0.25 * 0.4 * unit, atol=1e-6)


def test_momentum_accumulates_normalised_gradients_per_image() -> None:
    clean = pictures(2)
    state = State(
        threat=Threat(), steps=2, clean=clean, region=None, x=clean, best=clean, best_rank=torch.zeros(2),
        generators=[], active=[0, 1], rows=torch.arange(2),
    )  # fmt: skip
    process = momentum(0.5)
    first, second = torch.randn(2, *SHAPE), torch.randn(2, *SHAPE) * 1000

    def unit(g: Tensor) -> Tensor:
        return g / g.abs().flatten(1).mean(1)[:, None, None, None]

    assert torch.allclose(process(first, state), unit(first))
    assert torch.allclose(process(second, state), 0.5 * unit(first) + unit(second))


def test_steps_are_steepest_and_zero_stays_zero() -> None:
    g = torch.zeros(2, *SHAPE)
    g[0] = WEIGHTS
    assert float(steepest(g, "l2")[0].norm()) == pytest.approx(1.0) and not steepest(g, "l2")[1].any()
    assert torch.equal(steepest(g, "linf")[0], WEIGHTS.sign()) and not steepest(g, "linf")[1].any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_starts_are_in_the_ball_and_belong_to_their_seed(norm: str) -> None:
    clean = pictures(3)
    threat = Threat(norm=norm, eps=0.05 if norm == "linf" else 0.5)  # type: ignore[arg-type]
    still = Parts(steps=1, start=uniform, rule=lambda g, s: s.x, keep_best=False)
    one = go(linear, clean, threat, still, seeds=[5, 6, 5]).images - clean
    assert torch.equal(one[0] != 0, one[2] != 0) and torch.allclose(one[0], one[2], atol=1e-6)
    assert not torch.allclose(one[0], one[1], atol=1e-3)
    for delta in one:
        size = delta.abs().max() if norm == "linf" else delta.norm()
        assert 0.9 * threat.eps < float(size) <= threat.eps * 1.0001


def test_an_image_whose_gradient_is_not_finite_stops_alone() -> None:
    clean, threat = pictures(3), Threat(eps=8 / 255)

    def sick(images: Tensor, active: Sequence[int], progress: float) -> Evaluation:
        loss = (images * WEIGHTS).flatten(1).sum(1)
        loss = loss * torch.tensor([float("nan") if i == 1 and progress >= 0.2 else 1.0 for i in active])
        return Evaluation(loss, loss.detach())

    trace = go(sick, clean, threat, pgd(threat, steps=10))
    healthy = go(linear, clean, threat, pgd(threat, steps=10))
    assert trace.flags == ("", "non-finite gradient at step 2", "") and trace.steps == (10, 2, 10)
    assert torch.equal(trace.images[[0, 2]], healthy.images[[0, 2]])
    assert trace.images.isfinite().all() and trace.losses[3:, 1].isnan().all()
    assert float((trace.images[1] - clean[1]).abs().max()) <= 8 / 255 + 1e-6


def test_a_first_gradient_that_is_not_finite_delivers_the_clean_image() -> None:
    clean, threat = pictures(1), Threat()
    nothing: Evaluate = lambda x, active, progress: Evaluation(x.flatten(1).sum(1) * float("inf"), torch.ones(len(x)))  # noqa: E731
    trace = go(nothing, clean, threat, pgd(threat))
    assert torch.equal(trace.images, clean) and trace.flags[0].startswith("non-finite")
    assert (trace.gradients, trace.forwards) == (1, 1)


def test_images_that_reached_their_goal_cost_nothing_more() -> None:
    clean, threat = pictures(3), Threat(eps=8 / 255)
    seen: list[int] = []
    floor = [float((clean[i] * WEIGHTS).sum()) - gap for i, gap in enumerate((0.1, 1.0, 1e9))]

    def evaluate(images: Tensor, active: Sequence[int], progress: float) -> Evaluation:
        seen.append(len(images))
        loss = (images * WEIGHTS).flatten(1).sum(1)
        return Evaluation(loss, loss.detach(), loss.detach() <= torch.tensor([floor[i] for i in active]))

    trace = go(evaluate, clean, threat, pgd(threat, steps=12, start=zero))
    assert 0 < trace.steps[0] < trace.steps[1] < trace.steps[2] == 12
    assert trace.gradients == sum(trace.steps) + 2 and sum(seen) == trace.forwards  # a stop is seen one pass later
    for i in (0, 1):
        assert float((trace.images[i] * WEIGHTS).sum()) <= floor[i]
    assert trace.flags == ("", "", "")


def test_a_goal_reached_by_the_last_iterate_is_delivered_though_another_ranked_better() -> None:
    clean, threat = pictures(2), Threat(eps=8 / 255)

    def evaluate(images: Tensor, active: Sequence[int], progress: float) -> Evaluation:
        loss, _, _ = linear(images, active, progress)
        return Evaluation(loss, loss.detach(), torch.tensor([i == 0 and progress == 1.0 for i in active]))

    found = go(evaluate, clean, threat, Parts(steps=5, start=zero, rule=fixed_step(-1 / 255)))  # it climbs
    assert torch.allclose(found.images[0], clean[0] + 5 / 255 * WEIGHTS.sign(), atol=1e-6)
    assert torch.equal(found.images[1], clean[1])


def test_auto_pgd_halves_at_exactly_the_share_of_improvements() -> None:
    """Croce & Hein, 2020, condition 1, as the authors' code has it: 3 of 4 at rho 0.75 is too few."""
    clean = pictures(2)
    state = State(
        threat=Threat(eps=8 / 255), steps=20, clean=clean, region=None, x=clean, best=clean + 1 / 255,
        best_rank=torch.ones(2), generators=[], active=[0, 1], rows=torch.arange(2),
    )  # fmt: skip
    flat = torch.zeros_like(clean)
    state.memory |= {
        "size": torch.full((2,), 0.5), "x": clean, "gradient": flat, "best_gradient": flat + 1,
        "improved": torch.tensor([3.0, 4.0]), "halved": torch.tensor([False, False]),
        "best_at_check": torch.full((2,), 2.0),
    }  # fmt: skip
    _judge(state, 4, 0.75)
    assert state.memory["size"].tolist() == [0.25, 0.5] and state.memory["halved"].tolist() == [True, False]
    assert torch.equal(state.memory["x"], torch.stack([state.best[0], clean[1]]))
    assert torch.equal(state.memory["gradient"], torch.stack([flat[0] + 1, flat[1]]))
    assert state.memory["improved"].tolist() == [0.0, 0.0]


def test_the_best_iterate_is_delivered_and_the_last_one_on_request() -> None:
    clean, threat = pictures(2), Threat(eps=8 / 255)
    away = fixed_step(-1 / 255)  # a rule that climbs: the start is the best point
    kept = go(linear, clean, threat, Parts(steps=5, start=zero, rule=away))
    last = go(linear, clean, threat, Parts(steps=5, start=zero, rule=away, keep_best=False))
    assert torch.equal(kept.images, clean)
    assert torch.allclose(last.images, clean + 5 / 255 * WEIGHTS.sign(), atol=1e-6)
    downhill = go(linear, clean, threat, Parts(steps=5, start=zero, rule=fixed_step(1 / 255)))
    assert torch.allclose(downhill.images, clean - 5 / 255 * WEIGHTS.sign(), atol=1e-6)  # the last is looked at too


def test_a_zero_gradient_is_said() -> None:
    flat: Evaluate = lambda x, active, progress: Evaluation(x.flatten(1).sum(1) * 0, torch.zeros(len(x)))  # noqa: E731
    assert go(flat, pictures(1), Threat(), pgd(Threat(), steps=2)).flags == (FLAT,)


def test_results_do_not_depend_on_the_rest_of_the_batch() -> None:
    clean, threat = pictures(4), Threat(norm="l2", eps=0.7)
    parts = replace(APGD(steps=15).parts(threat), gradients=(momentum(0.9),))
    together = go(linear, clean, threat, parts, seeds=[3, 1, 4, 1])
    for i, seed in enumerate((3, 1, 4, 1)):
        alone = go(linear, clean[i : i + 1], threat, parts, seeds=[seed])
        assert torch.allclose(alone.images[0], together.images[i], atol=1e-6)


def test_a_transform_is_differentiated_through_and_sees_generators() -> None:
    clean, threat = pictures(1), Threat(eps=8 / 255)
    flipped = go(linear, clean, threat, pgd(threat, transform=lambda x, state: x.flip(-1)))
    assert torch.allclose(flipped.images, clean - 8 / 255 * WEIGHTS.flip(-1).sign(), atol=1e-6)


def test_iterates_on_the_lattice_and_a_given_start() -> None:
    clean, threat = pictures(1), Threat(eps=8 / 255)
    seen: list[Tensor] = []

    def evaluate(images: Tensor, active: Sequence[int], progress: float) -> Evaluation:
        seen.append(images.detach())
        return linear(images, active, progress)

    start = given(clean + 0.01)
    go(evaluate, clean, threat, pgd(threat, steps=4, start=start, lattice=True))
    assert torch.allclose(seen[0], clean + 3 / 255, atol=1e-6)  # 0.01 is 2.55 levels
    assert all(((x * 255).round() - x * 255).abs().max() < 1e-3 for x in seen) and len(seen) == 5
