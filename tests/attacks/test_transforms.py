"""The parts of the transfer recipes against what can be computed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from redsam.attacks.difgsm import DIFGSM
from redsam.attacks.loop import Evaluation, Parts, State, descend
from redsam.attacks.parts import fixed_step, zero
from redsam.attacks.transforms import (
    average,
    chain,
    cosines,
    diversity,
    kernel_line,
    lookahead,
    ranked_at_iterate,
    scaled,
    smoothed,
    spectrum,
    step_or_share,
    variance_tuned,
)
from redsam.errors import InputError
from redsam.prompts import point
from redsam.threat import Threat
from redsam.types import from_uint8


def state(images: Tensor, seed: int = 0) -> State:
    count = len(images)
    return State(
        threat=Threat(), steps=3, clean=images, region=None, x=images, best=images, best_rank=torch.zeros(count),
        generators=[torch.Generator().manual_seed(seed + i) for i in range(count)], active=list(range(count)),
        rows=torch.arange(count),
    )  # fmt: skip


def noise(count: int = 2, height: int = 20, width: int = 30) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(9)) * 0.8 + 0.2


# --- input diversity -----------------------------------------------------------------------------------------------
def test_a_diverse_copy_is_a_smaller_picture_on_black() -> None:
    x = noise(1)
    sizes = set()
    for seed in range(40):
        out = diversity(0.8, 1.0)(x, state(x, seed))
        lit = out[0].sum(0) > 0
        rows, columns = lit.any(1).nonzero().flatten(), lit.any(0).nonzero().flatten()
        height, width = int(rows.max() - rows.min() + 1), int(columns.max() - columns.min() + 1)
        assert out.shape == x.shape and bool(lit[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all())
        assert 24 <= width < 30 and height == 20 * width // 30
        small = torch.nn.functional.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)
        top, left = int(rows.min()), int(columns.min())
        assert torch.equal(out[..., top : top + height, left : left + width], small)
        sizes.add(width)
    assert len(sizes) > 3


def test_the_coin_is_fair_and_each_image_has_its_own() -> None:
    x = noise(200, 6, 6)
    moved = (diversity(0.5, 0.3)(x, state(x)) != x).flatten(1).any(1)
    assert 0.2 < float(moved.float().mean()) < 0.4
    one = diversity(0.5, 0.3)(x[5:6], state(x[5:6], seed=5))
    assert torch.equal(one[0], diversity(0.5, 0.3)(x, state(x))[5])
    assert torch.equal(diversity(0.5, 0.0)(x, state(x)), x)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (9, 2)])
def test_a_picture_too_small_to_shrink_survives(size: tuple[int, int]) -> None:
    x = noise(1, *size)
    for seed in range(10):
        assert diversity(0.9, 1.0)(x, state(x, seed)).shape == x.shape


# --- look-ahead, scales, spectra -----------------------------------------------------------------------------------
def test_the_look_ahead_goes_where_momentum_goes() -> None:
    x, s = noise(), state(noise())
    assert torch.equal(lookahead(0.1, 0.5)(x, s), x)
    s.memory["momentum"] = torch.full_like(x, 2.0)
    assert torch.allclose(lookahead(0.1, 0.5)(x, s), x - 0.1)
    assert torch.allclose(chain(lookahead(0.1, 0.5), scaled(0.25))(x, s), (x - 0.1) / 4)


def test_the_cosine_transform_is_the_orthonormal_dct() -> None:
    fft = pytest.importorskip("scipy.fft")
    x = noise(1)[0, 0].double()
    rows, columns = cosines(20), cosines(30)
    assert torch.allclose(rows @ x @ columns.T, torch.from_numpy(fft.dctn(x.numpy(), norm="ortho")))
    assert torch.allclose(rows.T @ rows, torch.eye(20, dtype=torch.float64))


def test_a_spectrum_without_noise_is_the_picture_and_with_it_stays_near() -> None:
    x = noise()
    assert torch.allclose(spectrum(0.0, 0.0)(x, state(x)), x, atol=1e-5)
    for rho in (0.1, 0.5):  # every coefficient is within rho of its own: so is the distance, by Parseval
        gap = (spectrum(0.0, rho)(x, state(x)) - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
        assert (gap < rho).all() and (gap > rho / 10).all()
    added = spectrum(16 / 255, 0.0)(x, state(x)) - x
    assert float(added.std()) == pytest.approx(16 / 255, rel=0.1)
    assert torch.equal(spectrum(0.1, 0.1)(x, state(x))[1], spectrum(0.1, 0.1)(x[1:], state(x[1:], seed=1))[0])


# --- gradients over copies -----------------------------------------------------------------------------------------
def cubic(images: Tensor, active: Sequence[int], progress: float) -> Evaluation:
    loss = images.pow(3).flatten(1).sum(1)
    return Evaluation(loss, loss.detach())


def test_the_mean_over_dimmed_copies_carries_their_factors() -> None:
    x = noise()
    result, gradient = average([scaled(1.0), scaled(0.5)])(cubic, state(x))
    assert torch.allclose(gradient, (3 * x**2 + 3 * x**2 / 8) / 2)
    assert torch.allclose(result.rank, x.pow(3).flatten(1).sum(1))


def test_the_variance_of_a_step_is_added_in_the_next() -> None:
    x, s = noise(), state(noise())
    tuned = variance_tuned(400, 0.3)
    _, first = tuned(cubic, s)
    assert torch.allclose(first, 3 * x**2)
    # E[3 (x + u)^2] - 3 x^2 = 3 Var(u) = 3 * 0.3^2 / 3
    assert float(s.memory["variance"].mean()) == pytest.approx(0.09, rel=0.05)
    s.step = 1
    variance = s.memory["variance"]
    _, second = tuned(cubic, s)
    assert torch.allclose(second, 3 * x**2 + variance)
    s.step = 2  # the last one
    kept = s.memory["variance"]
    tuned(cubic, s)
    assert s.memory["variance"] is kept


def test_losses_are_taken_at_the_iterate_when_the_best_is_wanted() -> None:
    x = from_uint8((noise() * 255).to(torch.uint8))
    parts = Parts(steps=3, start=zero, rule=fixed_step(1 / 255), transform=scaled(0.5), keep_best=False)
    half = descend(cubic, x, threat=Threat(), parts=parts, seeds=[0, 0])
    full = descend(cubic, x, threat=Threat(), parts=ranked_at_iterate(parts, True), seeds=[0, 0])
    assert torch.equal(half.images, full.images)
    assert torch.allclose(half.losses[0] * 8, full.losses[0]) and torch.equal(half.losses[-1], full.losses[-1])
    assert (half.forwards, full.forwards) == (4 * 2, 7 * 2)
    assert ranked_at_iterate(parts, False) is parts
    plain = replace(parts, transform=None)
    assert ranked_at_iterate(plain, True) is plain


# --- kernels -------------------------------------------------------------------------------------------------------
def test_kernels_are_those_of_the_paper() -> None:
    assert kernel_line("uniform", 3).tolist() == pytest.approx([1 / 3] * 3)
    assert kernel_line("linear", 3).tolist() == pytest.approx([0.25, 0.5, 0.25])
    line = kernel_line("gaussian", 15)
    assert float(line[0] / line[7]) == pytest.approx(float(torch.tensor(-4.5).exp()), rel=1e-6)
    assert float(line.sum()) == pytest.approx(1)


def test_smoothing_spreads_one_gradient_over_its_neighbours() -> None:
    gradient = torch.zeros(1, 3, 7, 7)
    gradient[0, 1, 3, 3] = 1.0
    out = smoothed("linear", 3)(gradient, state(gradient))
    expected = torch.tensor([0.25, 0.5, 0.25])
    assert torch.allclose(out[0, 1, 2:5, 2:5], torch.outer(expected, expected))
    assert float(out.sum()) == pytest.approx(1) and not out[0, [0, 2]].any()


# --- refusals ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: diversity(0.0, 0.5), "resize rate"),
        (lambda: diversity(1.2, 0.5), "resize rate"),
        (lambda: average([]), "0 copies"),
        (lambda: variance_tuned(0, 0.1), "0 neighbours"),
        (lambda: kernel_line("gaussian", 4), "no middle"),
        (lambda: kernel_line("round", 3), "no kernel"),  # type: ignore[arg-type]
    ],
)
def test_settings_that_cannot_be_meant_are_refused(make: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        make()


def test_the_budget_is_shared_among_the_steps() -> None:
    assert step_or_share(None, 10, Threat(eps=0.1)) == pytest.approx(0.01)
    assert step_or_share(0.5, 10, Threat(eps=0.1)) == 0.5


def test_granted_queries_count_every_pass(toy_class: Any) -> None:
    image = from_uint8(torch.full((1, 3, 16, 16), 140, dtype=torch.uint8))
    run = [[point(3, 3)]]
    DIFGSM(steps=4).run(toy_class(side=16), image, run, threat=Threat(queries=5))
    with pytest.raises(InputError, match="needs? 9 forward passes"):  # the iterate is looked at, too
        DIFGSM(steps=4, keep_best=True).run(toy_class(side=16), image, run, threat=Threat(queries=8))
