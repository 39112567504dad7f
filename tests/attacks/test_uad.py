"""UAD: splines against closed forms and scipy, the flows' losses by hand, both stages on a tiny model."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.interpolate import RBFInterpolator
from torch import Tensor
from torch.autograd import gradcheck

from redsam.attacks import uad
from redsam.attacks.feature import Anchors, similarity
from redsam.attacks.task import Task
from redsam.attacks.uad import UAD, Deformation
from redsam.attacks.warp import (
    LAST,
    checkerboard,
    control_grid,
    control_loss,
    dense_flow,
    patchwork,
    pixels,
    spline,
    warp,
)
from redsam.errors import InputError
from redsam.models import Segmenter, tiny
from redsam.models.features import tap
from redsam.models.resample import resize
from redsam.threat import Threat
from redsam.types import from_uint8, to_uint8

THREAT = Threat(eps=8 / 255)


@pytest.fixture(scope="module")
def sam() -> Segmenter:
    return tiny("sam", image_size=32)


def pictures(count: int = 2) -> Tensor:
    coarse = torch.rand(count, 3, 6, 8, generator=torch.Generator().manual_seed(7))
    return from_uint8(to_uint8(resize(coarse, (24, 32))))


def task_of(model: Segmenter, images: Tensor, **more: Any) -> Task:
    return Task(
        segmenter=model, clean=images, prompts=[[]] * len(images), threat=THREAT, seeds=list(range(len(images))), **more
    )  # fmt: skip


def random_points(seed: int = 0, count: int = 36) -> tuple[Tensor, Tensor]:
    """Source and dest as stage A has them, moved by some 30 pixels."""
    grid = control_grid(math.isqrt(count))
    noise = torch.randn(2, *grid.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return grid + 10 * noise[0], (grid + 30 * noise[1]).clamp(0, LAST)


# --- splines -------------------------------------------------------------------------------------------------------
def test_control_points_are_the_centres_of_the_blocks() -> None:
    grid = control_grid(6)
    assert grid.shape == (36, 2) and grid[0].tolist() == [85, 85] and grid[-1].tolist() == [935, 935]
    assert grid[1].tolist() == [85, 255]


def test_a_spline_agrees_with_scipy_and_passes_through_its_points() -> None:
    source, dest = random_points()
    query = torch.rand(200, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * LAST
    ours, values = spline(dest, dest - source, query), dest - source
    theirs = RBFInterpolator(dest.numpy(), values.numpy(), kernel="thin_plate_spline", degree=1)(query.numpy())
    assert torch.allclose(ours, torch.from_numpy(theirs), atol=1e-3)
    assert torch.allclose(spline(dest, values, dest), values, atol=1e-3)


@pytest.mark.parametrize("size", [(40, 70), (200, 150)])
def test_affine_displacements_give_exactly_the_affine_flow(size: tuple[int, int]) -> None:
    _, dest = random_points()
    matrix = torch.tensor([[0.02, -0.05], [0.03, 0.01]], dtype=torch.float64)
    shift = torch.tensor([7.0, -12.0], dtype=torch.float64)
    flow = dense_flow(dest - (dest @ matrix + shift), dest, size)
    expected = (pixels(size, dest) @ matrix + shift).view(*size, 2)
    assert torch.allclose(flow, expected, atol=1e-8)


def test_between_nodes_a_flow_is_bilinear_and_close() -> None:
    source, dest = random_points()
    size = (300, 260)
    exact = spline(dest, dest - source, pixels(size, dest)).view(*size, 2)
    assert float((dense_flow(source, dest, size) - exact).abs().max()) < 0.5  # of 1024; the flow itself moves by 100


def test_flows_are_batched_and_differentiable_in_both_ends() -> None:
    pairs = [random_points(s, count=9) for s in (1, 2)]
    source, dest = (torch.stack([p[i] for p in pairs])[:, None].requires_grad_(True) for i in (0, 1))
    flows = dense_flow(source, dest, (4, 5))
    assert flows.shape == (2, 1, 4, 5, 2)
    assert torch.allclose(flows[1, 0], dense_flow(*pairs[1], (4, 5)))
    assert gradcheck(lambda s, d: dense_flow(s, d, (4, 5)) / 100, (source, dest), atol=1e-6)


def test_points_that_meet_do_not_break_the_system() -> None:
    source, dest = random_points()
    dest[1] = dest[0]
    dest.requires_grad_(True)
    flow = dense_flow(source, dest, (8, 8))
    (gradient,) = torch.autograd.grad(flow.sum(), dest)
    assert flow.isfinite().all() and gradient.isfinite().all()


def test_a_shift_of_whole_pixels_moves_the_picture_and_continues_its_edge() -> None:
    image = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    grid = control_grid(6)
    moved = torch.tensor([2 * LAST / 11, -3 * LAST / 15], dtype=torch.float64)  # 2 rows down, 3 columns left
    out = warp(image, dense_flow(grid, grid + moved, (12, 16))[None, None])[0, 0]
    assert torch.allclose(out[:, 2:, :-3], image[0, :, :-2, 3:], atol=1e-5)
    assert torch.allclose(out[:, 0, :-3], image[0, :, 0, 3:], atol=1e-5)


def test_no_movement_is_the_picture_itself() -> None:
    image, grid = pictures(), control_grid(6)
    still = dense_flow(grid, grid, (24, 32)).expand(2, 4, -1, -1, -1)
    assert torch.allclose(warp(image, still), image[:, None].expand(-1, 4, -1, -1, -1), atol=1e-5)


# --- patches and losses by hand ------------------------------------------------------------------------------------
def test_patches_take_turns() -> None:
    board = checkerboard((5, 4), 300)[0, 0]  # rows at 0, 256, 511, 767, 1023; columns at 0, 341, 682, 1023
    assert board.tolist() == [[0, 1, 0, 1], [0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]]


def test_a_patch_is_the_brightest_or_the_darkest() -> None:
    stack = torch.tensor([1.0, 3.0, 2.0]).view(1, 3, 1, 1, 1).expand(1, 3, 3, 1, 3)
    assert patchwork(stack, torch.tensor([[[[0.0, 1.0, 0.5]]]]))[0, 0].tolist() == [[1.0, 3.0, 2.0]]


def test_control_wants_one_movement_in_a_flow_and_others_across() -> None:
    source = torch.zeros(1, 2, 2, 2)
    dest = torch.tensor([[[[0.0, 0.0], [2.0, 0.0]], [[4.0, 0.0], [6.0, 0.0]]]])
    within = (math.sqrt(2) + 0) / 2  # sd of (0, 2) and of (4, 6) along y, none along x
    across = (math.sqrt(8) + 0) / 2  # sd of (0, 4) and of (2, 6)
    assert control_loss(source, dest).item() == pytest.approx(within - 0.5 * across)
    assert control_loss(source[:, :1], dest[:, :1]).item() == pytest.approx(within)


# --- stage A -------------------------------------------------------------------------------------------------------
def test_the_start_is_a_grid_with_faint_noise_from_each_images_seed(sam: Segmenter) -> None:
    shape = Deformation(task_of(sam, pictures()), 4)
    assert shape.source.shape == shape.dest.shape == (2, 4, 36, 2)
    assert torch.equal(shape.source[1, 3], control_grid(6))
    assert float((shape.dest - shape.source).detach().std()) == pytest.approx(17, rel=0.1)
    alone = Deformation(task_of(sam, pictures()).subset([1]), 4)
    assert torch.equal(alone.dest[0], shape.dest[1])


def deform(attack: UAD, task: Task) -> Deformation:
    anchors = Anchors(task=task)
    return attack.deform(task, anchors, anchors(task.clean))


def test_the_flows_move_more_and_cost_less(sam: Segmenter) -> None:
    task = task_of(sam, pictures())
    before, after = Deformation(task, 4), deform(UAD(iterations=15), task)
    with torch.no_grad():
        first, last = before.cost(before.warped()), after.cost(after.warped())
        moved = [(task.clean - d.warped()).abs().mean((1, 2, 3)) for d in (before, after)]
    assert (last < first - 0.5).all() and (moved[1] > moved[0]).all()
    for point in after.points:
        assert float(point.detach().min()) >= 0 and float(point.detach().max()) <= LAST
    assert not torch.equal(after.source, before.source) and not torch.equal(after.dest, before.dest)


def test_adam_moves_points_by_its_rate_in_frame_pixels(sam: Segmenter) -> None:
    task = task_of(sam, pictures(1))
    before, after = Deformation(task, 4), deform(UAD(iterations=1, rate=10), task)
    steps = (after.source - before.source).detach().abs()
    assert float(steps.max()) == pytest.approx(10, rel=1e-3) and float((steps > 9).double().mean()) > 0.9


def test_fidelity_alone_steers_the_flows_towards_what_can_be_imitated(
    sam: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(sam, pictures())
    monkeypatch.setattr(Deformation, "cost", lambda self, warped: warped.flatten(1).mean(1) * 0)

    def fidelity(shape: Deformation) -> Tensor:
        clean, copy = tap(sam, task.clean)[1], [f.detach() for f in tap(sam, shape.warped())[1]]
        reached = tap(sam, UAD().imitate(task, uad.fidelity(clean, copy)))[1]
        return (similarity(reached, clean) - similarity(reached, copy)).detach()

    after = deform(UAD(iterations=8), task)
    assert not torch.equal(after.dest, Deformation(task, 4).dest)
    assert (fidelity(after) < fidelity(Deformation(task, 4))).all()


def test_the_imitation_stays_in_the_budget_and_the_region(sam: Segmenter) -> None:
    region = torch.zeros(2, 1, 24, 32, dtype=torch.bool)
    region[..., :10, :] = True
    task = task_of(sam, pictures(), region=region)
    clean, copy = (tap(sam, x)[1] for x in (task.clean, task.clean.flip(-1)))
    out = UAD().imitate(task, uad.fidelity([f.detach() for f in clean], [f.detach() for f in copy]))
    gap = (out - task.clean).abs()
    assert float(gap.max()) <= 8 / 255 + 1e-6 and float(gap[..., 10:, :].max()) == 0 and float(gap.max()) > 7 / 255


# --- both stages ---------------------------------------------------------------------------------------------------
def test_the_loss_is_the_fidelity_of_the_copy_found(sam: Segmenter) -> None:
    images = pictures(1)
    shape = Deformation(task_of(sam, images), 4)
    clean, copy = (torch.cat([f.flatten() for f in tap(sam, x)[1]]) for x in (images, shape.warped().detach()))
    assert len(tap(sam, images)[1]) == 1  # one block, so the mean over blocks is its cosine
    result = UAD(steps=1, iterations=0).run(sam, images, [[]], threat=Threat(eps=0))
    expected = 1 - torch.nn.functional.cosine_similarity(clean, copy, dim=0)
    assert float(result.losses[0]) == pytest.approx(float(expected), rel=1e-3)


def test_the_result_looks_like_the_copy_to_the_model(sam: Segmenter) -> None:
    task = task_of(sam, pictures())
    attack = UAD(steps=10, iterations=4)
    result = attack.run(sam, task.clean, [[], []], threat=THREAT, seeds=task.seeds)
    copy = tap(sam, deform(attack, task).warped().detach())[1]
    before, after = tap(sam, task.clean)[1], tap(sam, from_uint8(result.images))[1]
    assert (similarity(after, copy) > similarity(before, copy)).all()
    assert (similarity(after, before) < 0.99).all()


def test_every_pass_is_counted(sam: Segmenter) -> None:
    result = UAD(steps=5, iterations=3).run(sam, pictures(), [[], []], threat=THREAT)
    assert result.gradients == 2 * (5 + 3 * 5) and result.forwards == 2 * (6 + 3 * 6 + 2)


def test_noise_and_momentum_change_the_path_and_nothing_else(sam: Segmenter) -> None:
    def run(**options: Any) -> Tensor:
        attack = UAD(steps=4, iterations=1, **options)
        return attack.run(sam, pictures(1), [[]], threat=THREAT, seeds=[3]).images

    plain, noise, decay = run(), run(noise=4 / 255), run(decay=1.0)
    assert not torch.equal(plain, noise) and not torch.equal(plain, decay) and not torch.equal(noise, decay)
    assert torch.equal(noise, run(noise=4 / 255))


@pytest.mark.parametrize("options", [{"iterations": -1}, {"flows": 0}])
def test_what_cannot_be_meant_is_said(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match="40 and 4"):
        UAD(**options)
