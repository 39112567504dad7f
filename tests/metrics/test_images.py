"""Image metrics against torchmetrics."""

from __future__ import annotations

import math

import pytest
import torch

from redsam.metrics import psnr, ssim


def pair(seed: int, shape: tuple[int, ...], noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(shape[0], 3, 6, 6, generator=generator)
    a = torch.nn.functional.interpolate(coarse, shape[-2:], mode="bicubic").clamp(0, 1)
    return a, (a + noise * torch.randn(a.shape, generator=generator)).clamp(0, 1)


@pytest.mark.parametrize("noise", [0.004, 0.03, 0.3])
def test_against_torchmetrics(noise: float) -> None:
    functional = pytest.importorskip("torchmetrics.functional.image")
    a, b = pair(0, (3, 3, 40, 57), noise)
    got = ssim(a, b)
    for i in range(3):
        one = (a[i : i + 1].double(), b[i : i + 1].double())
        _, full = functional.structural_similarity_index_measure(one[0], one[1], data_range=1.0, return_full_image=True)
        # torchmetrics averages over reflected borders too; the authors' code, and ours, over whole windows only
        expected = full[..., 5:-5, 5:-5].mean()
        assert float(got[i]) == pytest.approx(float(expected), abs=1e-5)
        expected = functional.peak_signal_noise_ratio(one[0], one[1], data_range=1.0)
        assert float(psnr(a, b)[i]) == pytest.approx(float(expected), abs=1e-4)


def test_equal_images() -> None:
    a, _ = pair(1, (2, 3, 20, 20), 0.0)
    assert torch.all(ssim(a, a) == 1)
    assert torch.all(torch.isinf(psnr(a, a)))


def test_known_value() -> None:
    a = torch.zeros(3, 16, 16)
    assert float(psnr(a, a + 0.1)) == pytest.approx(20.0, abs=1e-5)
    # two flat images: only the luminance term is left, (2 m1 m2 + C1) / (m1^2 + m2^2 + C1)
    assert float(ssim(a + 0.2, a + 0.4)) == pytest.approx((2 * 0.08 + 1e-4) / (0.04 + 0.16 + 1e-4), abs=1e-5)


def test_smaller_than_the_window() -> None:
    a, b = pair(2, (1, 3, 4, 30), 0.1)
    assert math.isfinite(float(ssim(a, b))) and float(ssim(a, b)) < 1


def test_batch_equals_loop() -> None:
    a, b = pair(3, (4, 3, 24, 31), 0.05)
    assert ssim(a, b).shape == (4,)
    torch.testing.assert_close(ssim(a, b)[2], ssim(a[2], b[2]))
    torch.testing.assert_close(psnr(a, b)[2], psnr(a[2], b[2]))
