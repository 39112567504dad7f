"""Mask metrics against pycocotools and an independent scipy implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from redsam import registry
from redsam.metrics import area, asr, boundary, boundary_iou, boundary_width, iou


def blobs(seed: int, count: int, height: int, width: int, level: float = 0.5) -> torch.Tensor:
    """Smooth random masks, some of them touching the border."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(count, height, width)), (0, 4, 4))
    return torch.from_numpy(noise > np.quantile(noise, level))


def test_iou_equals_pycocotools() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    a, b = blobs(0, 20, 47, 61), blobs(1, 20, 47, 61, 0.7)
    encode = [coco.encode(np.asfortranarray(m.numpy().astype(np.uint8).transpose(1, 2, 0))) for m in (a, b)]
    expected = np.diag(coco.iou(encode[0], encode[1], [0] * 20))
    np.testing.assert_allclose(iou(a, b).numpy(), expected, rtol=0, atol=1e-12)
    assert iou(a, b).dtype == torch.float64


def test_empty_masks_are_stated_not_dropped() -> None:
    none, some = torch.zeros(8, 9, dtype=torch.bool), torch.zeros(8, 9, dtype=torch.bool)
    some[2, 3] = True
    assert iou(none, none) == 1 and boundary_iou(none, none) == 1
    assert iou(none, some) == 0 and iou(some, none) == 0
    assert boundary_iou(none, some) == 0


def scipy_boundary(mask: np.ndarray, width: int) -> np.ndarray:
    """The authors' recipe, step by step: pad with zeros, erode by 3x3 `width` times, cut the padding, subtract."""
    padded = np.pad(mask, 1)
    eroded = ndimage.binary_erosion(padded, structure=np.ones((3, 3)), iterations=width, border_value=1)
    return mask & ~eroded[1:-1, 1:-1]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000), st.integers(3, 40), st.integers(3, 40), st.integers(1, 8), st.sampled_from([0.1, 0.5, 0.9])
)
def test_boundary_equals_repeated_erosion(seed: int, height: int, width: int, band: int, level: float) -> None:
    mask = blobs(seed, 2, height, width, level)
    expected = np.stack([scipy_boundary(m, band) for m in mask.numpy()])
    assert np.array_equal(boundary(mask, width=band).numpy(), expected)


def test_boundary_iou_on_photograph_size() -> None:
    a, b = blobs(3, 3, 321, 481), blobs(4, 3, 321, 481, 0.55)
    a[0, 40:300, 30:400] = True  # a large inside, where plain and boundary IoU differ
    b[0, 45:305, 30:400] = True
    width = boundary_width(321, 481)
    assert width == 12  # 2 % of 578.3
    bands = [np.stack([scipy_boundary(m, width) for m in t.numpy()]) for t in (a, b)]
    expected = (bands[0] & bands[1]).sum((1, 2)) / (bands[0] | bands[1]).sum((1, 2))
    np.testing.assert_allclose(boundary_iou(a, b).numpy(), expected, atol=1e-12)
    assert boundary_iou(a, b)[0] < iou(a, b)[0]


def test_leading_dimensions_are_a_batch() -> None:
    a, b = blobs(5, 6, 20, 30).view(2, 3, 20, 30), blobs(6, 6, 20, 30).view(2, 3, 20, 30)
    assert iou(a, b).shape == (2, 3)
    assert iou(a, b)[1, 2] == iou(a[1, 2], b[1, 2])
    assert boundary_iou(a, b)[1, 2] == boundary_iou(a[1, 2], b[1, 2])


def test_many_masks_are_taken_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = blobs(7, 6, 30, 40).view(2, 3, 30, 40)
    whole = boundary(mask, width=3)
    monkeypatch.setattr("redsam.metrics.masks.CHUNK", 2000)
    assert torch.equal(boundary(mask, width=3), whole)


def test_asr_counts_the_threshold_itself() -> None:
    values = torch.tensor([0.0, 0.1, 0.10001, 0.5, 0.51, 1.0], dtype=torch.float64)
    assert asr(values, percent=50) == pytest.approx(4 / 6)
    assert asr(values, percent=10) == pytest.approx(2 / 6)
    with pytest.raises(ValueError, match="no prompts"):
        asr(torch.zeros(0))


def test_wrong_shapes_and_types_are_refused() -> None:
    mask = torch.zeros(4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="bool"):
        iou(mask.float(), mask)
    with pytest.raises(ValueError, match="one shape"):
        iou(mask, mask[:3])
    with pytest.raises(ValueError, match="at least 1"):
        boundary(mask, width=0)


def test_every_metric_says_its_direction_and_range() -> None:
    declared = {e.name: e.meta for e in registry.entries("metric")}
    assert {"iou", "boundary-iou", "asr", "psnr", "ssim"} <= set(declared)
    for name, meta in declared.items():
        assert isinstance(meta["higher_is_better"], bool), name
        low, high = meta["range"]
        assert low < high, name


def test_area_is_the_share_of_set_pixels() -> None:
    mask = torch.zeros(2, 5, 8, dtype=torch.bool)
    mask[1, :2, :3] = True
    assert torch.equal(area(mask), torch.tensor([0.0, 6 / 40], dtype=torch.float64))
