"""Automatic masks: each part against a hand or brute-force oracle, the defaults against the published ones."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from redsam.models import Segmenter, automatic_masks, tiny, wrap
from redsam.models.automatic import boxes_of, crop_boxes, nms, point_grid, stability

# SamAutomaticMaskGenerator's constructor (segment-anything 1.0); its min_mask_region_area of 0 is our min_area.
PUBLISHED = {
    "points_per_side": 32,
    "points_per_batch": 64,
    "pred_iou_thresh": 0.88,
    "stability_score_thresh": 0.95,
    "stability_score_offset": 1.0,
    "box_nms_thresh": 0.7,
    "crop_n_layers": 0,
    "crop_nms_thresh": 0.7,
    "crop_overlap_ratio": 512 / 1500,
    "crop_n_points_downscale_factor": 1,
    "min_area": 0,
}


def test_defaults_are_the_published_ones() -> None:
    parameters = inspect.signature(automatic_masks).parameters
    assert {k: p.default for k, p in parameters.items() if p.default is not p.empty} == PUBLISHED


def _nms_by_hand(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    """Greedy, one pair at a time, in Python numbers."""

    def iou(a: np.ndarray, b: np.ndarray) -> float:
        w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        both = max(w, 0) * max(h, 0)
        either = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
        return both / either if either > 0 else 0.0

    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda j: (-scores[j], j)):
        if all(iou(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 40), st.integers(0, 2**31), st.sampled_from([0.0, 0.3, 0.7]))
def test_nms_equals_brute_force(count: int, seed: int, threshold: float) -> None:
    generator = np.random.default_rng(seed)
    corner = generator.integers(0, 20, (count, 2))
    boxes = np.concatenate([corner, corner + generator.integers(0, 15, (count, 2))], 1).astype(np.float32)
    scores = generator.integers(0, 10, count).astype(np.float32)  # with ties
    found = nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold)
    assert found.tolist() == _nms_by_hand(boxes.astype(float), scores, threshold)


def test_point_grid_is_cell_centres_row_by_row() -> None:
    expected = [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    assert point_grid(2).tolist() == expected


def test_stability_by_hand() -> None:
    logits = torch.tensor([[[2.0, 2.0], [0.5, -5.0]], [[-9.0, -9.0], [-9.0, -9.0]]])
    assert stability(logits).tolist() == [pytest.approx(2 / 3), 0.0]


def test_boxes_by_hand() -> None:
    masks = torch.zeros(2, 5, 7, dtype=torch.bool)
    masks[0, 1:4, 2:6] = True
    assert boxes_of(masks).tolist() == [[2, 1, 5, 3], [0, 0, 0, 0]]


def test_crops_by_hand() -> None:
    """150 x 100: short side 100, overlap int(512 / 1500 * 100) = 34 in the first layer."""
    boxes = crop_boxes(100, 150, 1, 512 / 1500)
    assert boxes[0] == (0, (0, 0, 150, 100))
    assert [b for _, b in boxes[1:]] == [(0, 0, 92, 67), (0, 33, 92, 100), (58, 0, 150, 67), (58, 33, 150, 100)]


class _Oracle(nn.Module):
    """Three masks per point: the quadrant the point is in, the left or right half, and an unsure mask."""

    def __init__(self, scores: tuple[float, float, float] = (0.95, 0.92, 0.99)) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.scores = scores

    def decode(self, features: Tensor, *, points: Tensor, multimask: bool, **_: object) -> tuple[Tensor, Tensor]:
        out = torch.full((len(features), 3, 32, 32), -10.0)
        for g, (x, y) in enumerate(points[:, 0, 0].tolist()):
            rows = slice(0, 16) if y < 32 else slice(16, 32)
            columns = slice(0, 16) if x < 32 else slice(16, 32)
            out[g, 0, rows, columns] = 10
            out[g, 1, :, columns] = 10
            out[g, 2] = 0.5  # inside only the looser of the two thresholds: stability 0
        return out, torch.tensor(self.scores).expand(len(features), 3)


def _oracle(scores: tuple[float, float, float] = (0.95, 0.92, 0.99)) -> Segmenter:
    net = _Oracle(scores)
    return wrap(net, image_size=64, embed=lambda x: x[:, :, ::8, ::8] + net.anchor, decode=net.decode)


def test_everything_of_a_known_world_is_found_once() -> None:
    image = torch.zeros(3, 64, 64)
    found = automatic_masks(_oracle(), image, points_per_side=6)
    assert len(found) == 6  # four quadrants, two halves, each once; the unsure mask never
    assert found.masks.sum((1, 2)).tolist() == [1024] * 4 + [2048] * 2
    assert (found.stability > 0.95).all() and found.iou.tolist() == sorted(found.iou.tolist(), reverse=True)
    assert all(m[int(y), int(x)] for m, (x, y) in zip(found.masks, found.points, strict=True))
    assert len(automatic_masks(_oracle((0.95, 0.80, 0.99)), image, points_per_side=6)) == 4
    assert len(automatic_masks(_oracle(), image, points_per_side=6, min_area=1500)) == 2


def test_masks_of_crops_lie_where_the_crop_lies() -> None:
    image = torch.zeros(3, 120, 120)
    found = automatic_masks(_oracle(), image, points_per_side=4, crop_n_layers=1)
    assert len(found) > 0 and found.masks.shape[1:] == (120, 120)
    assert torch.equal(found.boxes, boxes_of(found.masks))


def test_runs_on_a_real_architecture() -> None:
    image = torch.randint(0, 256, (3, 40, 56), generator=torch.Generator().manual_seed(0)).float() / 255
    found = automatic_masks(
        tiny("sam"), image, points_per_side=4, pred_iou_thresh=-9, stability_score_thresh=0, stability_score_offset=0.01
    )
    assert 0 < len(found) <= 48 and found.masks.any(2).any(1).all()
    none = automatic_masks(tiny("sam"), image, points_per_side=4)
    assert len(none) == 0 and none.masks.shape == (0, 40, 56)


def test_a_threshold_of_zero_switches_its_filter_off() -> None:
    """As published; otherwise predicted IoUs below zero would go."""
    image = torch.zeros(3, 64, 64)
    below = _oracle((-0.5, -0.6, -0.7))
    assert len(automatic_masks(below, image, points_per_side=6)) == 0
    assert len(automatic_masks(below, image, points_per_side=6, pred_iou_thresh=0.0)) == 6
    # The unsure mask, empty at the tighter threshold and everything at the looser, is full-size at threshold 0.
    everything = automatic_masks(below, image, points_per_side=6, pred_iou_thresh=0.0, stability_score_thresh=0.0)
    assert sorted(everything.masks.sum((1, 2)).tolist())[-1] == 64 * 64
