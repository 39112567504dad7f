"""Each purifier against an independent implementation, or against what it must do to pictures made for it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from redsam.defenses import parse
from redsam.types import from_uint8, to_uint8
from tests.defenses.conftest import pictures


def purified(text: str, images: Tensor, seed: int = 0) -> Tensor:
    """Before clamping and rounding."""
    return parse(text).purify(images, [torch.Generator().manual_seed(seed + i) for i in range(len(images))])


def hwc(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).double().numpy()


@pytest.mark.parametrize("quality", [10, 75])
def test_jpeg_is_pillows_with_half_the_chroma(quality: int, photographs: Tensor) -> None:
    found = parse(f"jpeg:quality={quality}").run(photographs)
    for image, ours in zip(to_uint8(photographs), to_uint8(found), strict=True):
        file = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality, subsampling="4:2:0")
        assert (np.array(Image.open(file)) == ours.permute(1, 2, 0).numpy()).all()


@pytest.mark.parametrize("sigma", [0.5, 1, 3])
def test_gaussian_is_scipys(sigma: float) -> None:
    images = pictures(2, 13, 21).double()
    wanted = ndimage.gaussian_filter(images.numpy(), (0, 0, sigma, sigma), mode="reflect")
    np.testing.assert_allclose(purified(f"gaussian:sigma={sigma}", images).numpy(), wanted, atol=1e-12)


@pytest.mark.parametrize("size", [2, 3, 4, 5])
@pytest.mark.parametrize("shape", [(13, 21), (150, 9)])
def test_median_is_scipys(size: int, shape: tuple[int, int]) -> None:
    images = pictures(1, *shape)
    wanted = ndimage.median_filter(images.numpy(), (1, 1, size, size), mode="reflect")
    assert (purified(f"median:size={size}", images).numpy() == wanted).all()


def test_bit_depth_leaves_so_many_levels() -> None:
    every = from_uint8(torch.arange(256, dtype=torch.uint8)).expand(1, 3, 2, 256)
    for bits in (1, 3, 5):
        found = parse(f"bit-depth:bits={bits}").run(every)
        assert len(found.unique()) == 2**bits and float((found - every).abs().max()) <= 0.5 / (2**bits - 1) + 0.5 / 255
    assert to_uint8(parse("bit-depth:bits=1").run(every))[0, 0, 0].tolist() == [0] * 128 + [255] * 128


def energy(u: Tensor, image: Tensor, weight: float) -> float:
    down = torch.nn.functional.pad(u.diff(dim=-2), (0, 0, 0, 1))
    right = torch.nn.functional.pad(u.diff(dim=-1), (0, 1))
    return float(weight * (down.square() + right.square()).sqrt().sum() + 0.5 * (u - image).square().sum())


def test_total_variation_is_chambolles(photographs: Tensor) -> None:
    """scikit-image's, whose weight is that of 1/2 |u - f|^2 + weight TV."""
    restoration = pytest.importorskip("skimage.restoration")
    image = photographs[:1].double()
    ours = purified("tv:weight=0.05,drop=0,steps=300", image)
    theirs = [restoration.denoise_tv_chambolle(c.numpy(), weight=0.05, eps=1e-9, max_num_iter=2000) for c in image[0]]
    other = torch.from_numpy(np.stack(theirs))[None]
    assert energy(ours, image, 0.05) <= energy(other, image, 0.05) * (1 + 1e-4) < energy(image, image, 0.05)
    assert float((ours - other).abs().max()) < 5e-3


def test_fifty_steps_of_total_variation_are_enough(photographs: Tensor) -> None:
    images = photographs[:1]
    for text in ("tv:steps=", "tv:drop=0,steps="):
        few, many = (purified(f"{text}{steps}", images) for steps in (50, 1000))
        assert float((few - many).abs().mean()) * 255 < 0.5, text


def test_total_variation_does_not_look_at_dropped_pixels() -> None:
    images = pictures(1, 16, 16) * 0.5
    keep = torch.rand((1, 16, 16), generator=torch.Generator().manual_seed(0)) >= 0.5
    changed = torch.where(keep, images, 1 - images)
    assert not torch.equal(changed, images)
    assert torch.equal(purified("tv", images), purified("tv", changed))
    assert not torch.equal(purified("tv:drop=0", images), purified("tv:drop=0", changed))


def averaged(image: np.ndarray, reach: int, beyond: int, weigh: Any) -> np.ndarray:
    """By the definition, one pixel after the other: weigh(patch here, patch there, squared distance)."""
    pad = reach + beyond
    wide = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="symmetric")
    near = np.pad(image, ((beyond, beyond), (beyond, beyond), (0, 0)), mode="symmetric")
    out = np.empty_like(image)
    size = 2 * beyond + 1
    for row, column in np.ndindex(image.shape[:2]):
        total, mass = np.zeros(3), 0.0
        for down, right in np.ndindex(2 * reach + 1, 2 * reach + 1):
            there = wide[row + down : row + down + size, column + right : column + right + size]
            here = near[row : row + size, column : column + size]
            weight = weigh(here, there, (down - reach) ** 2 + (right - reach) ** 2)
            total, mass = total + weight * there[beyond, beyond], mass + weight
        out[row, column] = total / mass
    return out


def test_bilateral_is_its_definition(photographs: Tensor) -> None:
    image = photographs[:1, :, 20:32, 30:44].double()

    def weigh(here: np.ndarray, there: np.ndarray, far: int) -> float:
        return float(np.exp(-0.5 * (far / 1.5**2 + ((here - there) ** 2).sum() / 0.1**2)))

    found = purified("bilateral:space=1.5,colour=0.1", image)
    np.testing.assert_allclose(hwc(found[0]), averaged(hwc(image[0]), 3, 0, weigh), atol=1e-12)


def test_non_local_means_is_its_definition(photographs: Tensor) -> None:
    """Inside, where no patch reaches over the border."""
    image = photographs[:1, :, 20:32, 30:44].double()

    def weigh(here: np.ndarray, there: np.ndarray, far: int) -> float:
        return float(np.exp(-((here - there) ** 2).mean() / (10 / 255) ** 2))

    found, wanted = purified("nlm:search=5,patch=3,strength=10", image), averaged(hwc(image[0]), 2, 1, weigh)
    inside = (slice(3, -3), slice(3, -3))
    np.testing.assert_allclose(hwc(found[0])[inside], wanted[inside], atol=1e-12)
    assert float(np.abs(hwc(found[0]) - wanted).max()) < 0.05


def test_non_local_means_keeps_edges_that_a_blur_loses() -> None:
    random = torch.Generator().manual_seed(1)
    edge = torch.zeros(1, 3, 24, 24)
    edge[..., 12:] = 0.8
    noisy = edge + 0.1 + 0.02 * torch.randn(edge.shape, generator=random)
    away, blurred = (purified(text, noisy) for text in ("nlm:strength=20", "gaussian:sigma=1.5"))
    assert float((away - edge - 0.1).abs().mean()) < 0.5 * float((noisy - edge - 0.1).abs().mean())
    step = [float((x[..., 12] - x[..., 11]).mean()) for x in (away, blurred)]
    assert step[0] > 0.75 > 0.4 > step[1]


def test_resizing_moves_no_pixel_by_more_than_half_of_one() -> None:
    ramp = (torch.arange(64) / 128).expand(1, 3, 48, 64).contiguous()
    inside = (..., slice(8, -8), slice(8, -8))
    moves = []
    for seed in range(20):
        found = purified("resize-pad:least=0.8,most=1.2", ramp, seed)[inside] - ramp[inside]
        assert float(found.std()) < 0.1 / 128, "not the same move everywhere"
        moves.append(float(found.mean()) * 128)
    assert max(map(abs, moves)) <= 0.55 and max(moves) > 0.2 and min(moves) < -0.2


def test_noise_has_its_sigma_and_every_image_its_own() -> None:
    grey = torch.full((2, 3, 64, 64), 0.5)
    found = purified("noise:sigma=0.1", grey) - 0.5
    assert abs(float(found.std()) - 0.1) < 0.003 and abs(float(found.mean())) < 0.003
    assert float((found[0] * found[1]).mean().abs()) < 1e-3
