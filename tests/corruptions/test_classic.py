"""The fifteen classic corruptions against closed forms, Pillow and SciPy."""

from __future__ import annotations

import colorsys
import io

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor

from redsam.corruptions.base import identity
from redsam.corruptions.colour import BRIGHTER, CONTRAST
from redsam.corruptions.defocus_blur import DISKS, kernel
from redsam.corruptions.digital import KEPT, QUALITY
from redsam.corruptions.filters import bell, convolve, indices, smooth, streak
from redsam.corruptions.fog import FOG, plasma
from redsam.corruptions.glass_blur import shuffled
from redsam.corruptions.noise import GAUSSIAN, IMPULSE, SHOT
from redsam.corruptions.zoom_blur import enlarged
from redsam.registry import create
from redsam.types import from_uint8, to_uint8
from tests.corruptions.conftest import pictures

ALL = pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
SCIPY = {"mirror": "mirror", "reflect": "reflect", "nearest": "nearest"}


def grey(level: int, side: int = 224) -> Tensor:
    return torch.full((1, 3, side, side), level / 255)


def run(name: str, severity: int, images: Tensor, seed: int = 0) -> Tensor:
    out: Tensor = create("corruption", name, severity=severity).run(images, seeds=[seed] * len(images)).images
    return out


def array(image: Tensor) -> NDArray[np.uint8]:
    out: NDArray[np.uint8] = to_uint8(image).permute(1, 2, 0).contiguous().numpy()
    return out


# --- noise --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("severity", [1, 2])  # stronger noise is cut at black and white
def test_gaussian_noise_has_its_standard_deviation(severity: int) -> None:
    out = run("gaussian-noise", severity, grey(128)).double()
    assert float(out.std()) == pytest.approx(GAUSSIAN[severity - 1], rel=0.01)
    assert float(out.mean()) == pytest.approx(128 / 255, abs=0.001)


@ALL
def test_shot_noise_is_poisson(severity: int) -> None:
    white, level = SHOT[severity - 1], 40 / 255
    out = run("shot-noise", severity, grey(40)).double()
    assert float(out.mean()) == pytest.approx(level, rel=0.02)
    assert float(out.var()) == pytest.approx(level / white, rel=0.04)
    photons = out * white
    assert float((photons - photons.round()).abs().max()) < white / 255, "values between whole photons"


@ALL
def test_impulse_noise_loses_its_share(severity: int) -> None:
    out = run("impulse-noise", severity, grey(100))
    share = IMPULSE[severity - 1]
    assert float((out == 0).float().mean()) == pytest.approx(share / 2, rel=0.05)
    assert float((out == 1).float().mean()) == pytest.approx(share / 2, rel=0.05)
    kept = out[(out > 0) & (out < 1)]
    assert torch.equal(kept, torch.full_like(kept, 100 / 255))
    assert not torch.equal(out[0, 0], out[0, 1]), "each colour on its own"


# --- blurs --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("border", ["mirror", "reflect", "nearest"])
@pytest.mark.parametrize("shape", [(3, 7), (41, 5), (1, 1)])
def test_convolution_against_scipy(border: str, shape: tuple[int, int]) -> None:
    """Also with a kernel much larger than the image."""
    images, weights = pictures(1, 16, 23), torch.rand(shape, generator=torch.Generator().manual_seed(1)).double()
    found = convolve(images, weights, border)  # type: ignore[arg-type]
    for channel in range(3):
        expected = ndimage.correlate(images[0, channel].double().numpy(), weights.numpy(), mode=SCIPY[border])
        np.testing.assert_allclose(found[0, channel].numpy(), expected, rtol=1e-5, atol=1e-7)


def test_borders_by_name() -> None:
    assert indices(3, 4, "nearest").tolist() == [0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2]
    assert indices(3, 4, "mirror").tolist() == [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]
    assert indices(3, 4, "reflect").tolist() == [2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0]


@pytest.mark.parametrize(("sigma", "truncate"), [(0.7, 4.0), (2.44, 3.0), (20.0, 4.0)])
def test_smoothing_against_scipy(sigma: float, truncate: float) -> None:
    images = pictures(1, 30, 44)
    found = smooth(images, sigma, "nearest", truncate=truncate)[0]
    expected = ndimage.gaussian_filter(images[0].double().numpy(), (0, sigma, sigma), mode="nearest", truncate=truncate)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


@ALL
def test_defocus_at_its_own_size_is_the_published_disk(severity: int) -> None:
    radius, soft = DISKS[severity - 1]
    found = kernel(float(radius), soft)
    at = np.arange(-(found.shape[0] // 2), found.shape[0] // 2 + 1)
    disk = (at[:, None] ** 2 + at**2 <= radius**2).astype(np.float64)
    expected = ndimage.gaussian_filter(disk / disk.sum(), soft, mode="constant")
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)
    images = pictures(1, 224, 224)
    blurred = np.stack([ndimage.correlate(c, expected, mode="mirror") for c in images[0].double().numpy()])
    assert np.abs(run("defocus-blur", severity, images)[0].numpy() - blurred).max() <= 0.5 / 255 + 1e-6


def test_a_disk_between_two_whole_ones() -> None:
    widths = [float((kernel(r, 0.1) > 1e-9).sum()) for r in (0.4, 1.0, 1.5, 2.0, 2.3)]
    assert widths == [5.0, 5.0, 13.0, 13.0, 29.0]
    assert float(kernel(1.5, 0.3).sum()) == pytest.approx(1)
    spread = [float((kernel(r, 0.1) ** 2).sum()) for r in np.arange(0.1, 6, 0.1)]
    assert all(a > b for a, b in zip(spread, spread[1:], strict=False)), "a larger radius blurs more"


@pytest.mark.parametrize(("degrees", "row", "column"), [(0, 0, 1), (90, 1, 0), (-90, -1, 0), (45, 1, 1)])
def test_a_streak_by_hand(degrees: float, row: int, column: int) -> None:
    weights, middle = streak(4, 3, degrees), streak(4, 3, degrees).shape[0] // 2
    length = 7 if degrees == 45 else 9  # on a diagonal nine steps of one pixel reach the seventh diagonal pixel
    assert float(weights.sum()) == pytest.approx(1)
    assert float(weights.max()) == float(weights[middle, middle] if degrees != 45 else weights.max())
    assert int((weights > 0).sum()) == length
    assert float(weights[middle + 2 * row, middle + 2 * column]) > 0
    assert float(weights[middle - row, middle - column]) == 0
    if degrees != 45:
        half = np.exp(-0.5 * (np.arange(9) / 3) ** 2)
        assert float(weights[middle + row, middle + column]) == pytest.approx(half[1] / half.sum())


def test_motion_blur_keeps_a_flat_image_and_its_mean() -> None:
    assert torch.equal(run("motion-blur", 5, grey(77)), grey(77))
    dot = torch.zeros(1, 3, 224, 224)
    dot[..., 100:124, 100:124] = 1
    assert float(run("motion-blur", 3, dot).sum()) == pytest.approx(float(dot.sum()), rel=0.01)


def test_zoom_blur_against_scipy() -> None:
    images = pictures(1, 40, 60)
    middle = np.array([19.5, 29.5])
    factors = np.arange(1, 1.21, 0.02)
    total = images[0].double().numpy().copy()
    for factor in factors:
        for channel in range(3):
            total[channel] += ndimage.affine_transform(
                images[0, channel].double().numpy(),
                np.eye(2) / factor,
                middle - middle / factor,
                order=1,
                mode="nearest",
            )
    expected = total / (len(factors) + 1)
    assert np.abs(run("zoom-blur", 3, images)[0].numpy() - expected).max() <= 0.5 / 255 + 1e-4


def test_enlarging_once_is_nothing() -> None:
    assert torch.allclose(enlarged(pictures(1), 1.0), pictures(1), atol=1e-4)


def test_glass_swaps_pixels_and_loses_none() -> None:
    for reach, rounds in [(1, 2), (4, 2), (18, 1)]:
        order = shuffled([torch.Generator().manual_seed(s) for s in (1, 2)], torch.zeros(2, 3, 60, 80), reach, rounds)
        assert torch.equal(order.sort(1).values, torch.arange(60 * 80).repeat(2, 1))
        assert not torch.equal(order[0], order[1])
        rows, columns = order // 80 - torch.arange(60 * 80) // 80, order % 80 - torch.arange(60 * 80) % 80
        moved = float(((rows != 0) | (columns != 0)).float().mean())
        assert moved > 0.3
        # A pixel may be swapped on by others, but one round brings few further than twice its reach.
        far = torch.maximum(rows.abs(), columns.abs()) > 2 * reach * rounds
        assert float(far.float().mean()) < 0.1
        assert abs(float(rows.double().mean())) < 1e-9  # a permutation drifts nowhere


def test_glass_keeps_a_flat_image() -> None:
    out = run("glass-blur", 3, grey(90, 64))
    assert float((out - 90 / 255).abs().max()) <= 1.01 / 255  # cut, not rounded, to 8 bits between its blurs


# --- colour -------------------------------------------------------------------------------------------------------
@ALL
def test_brightness_raises_the_value_of_hsv(severity: int) -> None:
    images = pictures(1, 8, 8)
    images[0, :, 0, 0] = 0
    out = run("brightness", severity, images)[0].flatten(1).T.tolist()
    for before, after in zip(images[0].flatten(1).T.tolist(), out, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        expected = colorsys.hsv_to_rgb(hue, saturation, min(value + BRIGHTER[severity - 1], 1))
        assert after == pytest.approx(expected, abs=0.51 / 255)


@ALL
def test_contrast_draws_to_the_mean(severity: int) -> None:
    images = pictures(2, 20, 30)
    mean = images.double().mean((2, 3), keepdim=True)
    expected = (images - mean) * CONTRAST[severity - 1] + mean
    assert float((run("contrast", severity, images) - expected).abs().max()) <= 0.5 / 255 + 1e-6


# --- weather ------------------------------------------------------------------------------------------------------
@ALL
def test_fog_on_black_and_white(severity: int) -> None:
    """x (max / (max + c)) + clouds between 0 and c max / (max + c)."""
    amount = FOG[severity - 1][0]
    images = torch.zeros(1, 3, 64, 64)
    images[..., 32:] = 1
    out = run("fog", severity, images)
    rest = 1 / (1 + amount)
    assert float(out[..., :32].max()) <= amount * rest + 0.003 and float(out[..., 32:].min()) >= rest - 0.003
    assert float(out.max()) <= 1 and torch.equal(out[0, 0], out[0, 2])


def test_plasma_spans_everything_and_is_finer_when_it_decays_less() -> None:
    coarse, fine = (plasma(128, decay, torch.Generator().manual_seed(3)) for decay in (2.0, 1.4))
    for field in (coarse, fine):
        assert (float(field.min()), float(field.max()), tuple(field.shape)) == (0.0, 1.0, (128, 128))
    steps = [float(f.diff(dim=0).abs().mean() / f.std()) for f in (coarse, fine)]
    assert steps[1] > 2 * steps[0]


@pytest.mark.parametrize("name", ["frost", "snow"])
def test_ice_and_flakes_lighten_black_and_differ_from_seed_to_seed(name: str) -> None:
    black = torch.zeros(1, 3, 128, 160)
    one, two = run(name, 3, black, seed=1), run(name, 3, black, seed=2)
    assert float(one.mean()) > 0.05 and float(one.std()) > 0.05 and not torch.equal(one, two)


@pytest.mark.parametrize("name", ["frost", "snow"])
def test_they_grow_with_the_image(name: str) -> None:
    """The same detail at twice the size: neighbours differ half as much, the mean stays."""
    small, large = run(name, 3, torch.zeros(1, 3, 160, 160)), run(name, 3, torch.zeros(1, 3, 480, 480))
    rough = [float(x.diff(dim=2).abs().mean()) for x in (small, large)]
    assert 1.6 < rough[0] / rough[1] < 4.5
    assert float(large.mean()) == pytest.approx(float(small.mean()), rel=0.35)


# --- digital ------------------------------------------------------------------------------------------------------
@ALL
def test_jpeg_is_pillow(severity: int, photographs: Tensor) -> None:
    file = io.BytesIO()
    Image.fromarray(array(photographs[0])).save(file, "JPEG", quality=QUALITY[severity - 1])
    np.testing.assert_array_equal(array(run("jpeg", severity, photographs)[0]), np.array(Image.open(file)))


@ALL
@pytest.mark.parametrize("size", [(40, 56), (224, 224), (30, 44)])
def test_pixelate_is_pillow(severity: int, size: tuple[int, int]) -> None:
    image = pictures(1, *size)[0]
    height, width = size
    small = Image.fromarray(array(image)).resize(
        (int(width * KEPT[severity - 1]), int(height * KEPT[severity - 1])), Image.Resampling.BOX
    )
    expected = np.array(small.resize((width, height), Image.Resampling.BOX)).astype(int)
    found = array(run("pixelate", severity, image[None])[0]).astype(int)
    assert np.abs(found - expected).max() <= 1  # Pillow rounds between columns and rows


@pytest.mark.parametrize(("severity", "furthest"), [(1, 80), (2, 160), (3, 14), (5, 16)])
def test_elastic_moves_as_far_as_published(severity: int, furthest: float) -> None:
    images = pictures(1, 224, 224)
    grid = create("corruption", "elastic", severity=severity).run(images, seeds=[4]).grid
    moved = (grid - identity(images)).norm(dim=-1)[:, 60:-60, 60:-60]  # within the affine map's three points
    assert float(moved.mean()) > 0.5 and float(moved.max()) < furthest


def test_elastic_looks_the_same_at_any_size() -> None:
    small, large = (
        create("corruption", "elastic", severity=5).run(torch.zeros(1, 3, side, side), seeds=[3]).grid
        for side in (224, 448)
    )
    shift = [(g - identity(torch.zeros(1, 3, *g.shape[1:3])))[:, ::k, ::k] / k for g, k in ((small, 1), (large, 2))]
    inner = (slice(None), slice(20, -20), slice(20, -20))
    assert float((shift[0][inner] - shift[1][inner]).abs().mean()) < 0.3


# --- other sizes --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["defocus-blur", "motion-blur"])
def test_lengths_follow_the_shorter_side(name: str) -> None:
    """A corrupted enlargement, shrunk again, is the corrupted image: the blur is the same part of the picture."""
    small = from_uint8(to_uint8(smooth(pictures(1, 224, 224), 6.0, "mirror").sub(0.5).mul(8).add(0.5).clamp(0, 1)))
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    one = run(name, 3, small, seed=9)
    two = torch.nn.functional.avg_pool2d(run(name, 3, large, seed=9), 2)
    changed = float((one - small).abs().mean())
    assert float((one - two).abs().mean()) < 0.35 * changed


def test_gaussian_weights() -> None:
    assert bell(0.1).tolist() == [1.0]
    assert len(bell(2.0)) == 17 and float(bell(2.0).sum()) == pytest.approx(1)
