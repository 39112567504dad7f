"""S-measure, E-measure, weighted F and MAE against PySODMetrics' numbers (see saliency_cases.py), and by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from redsam.metrics import e_measure, mae, s_measure, weighted_f
from tests.metrics.saliency_cases import cases

MEASURES = {"s_measure": s_measure, "e_measure": e_measure, "weighted_f": weighted_f, "mae": mae}
EXPECTED = json.loads(Path(__file__).with_name("saliency_expected.json").read_text())


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("name", EXPECTED)
def test_equals_pysodmetrics(name: str, measure: str) -> None:
    if (name, measure) == ("empty mask", "weighted_f"):
        pytest.skip("undefined by formula; the next test says what stands in")
    p, g = cases()[name]
    found = float(MEASURES[measure](torch.from_numpy(p), torch.from_numpy(g)))
    assert found == pytest.approx(EXPECTED[name][measure], abs=1e-9)


def test_two_empty_masks_agree() -> None:
    empty = torch.zeros(8, 8, dtype=torch.bool)
    assert float(weighted_f(torch.full((8, 8), 0.49), empty)) == 1.0
    assert float(weighted_f(torch.eye(8), empty)) == 0.0
    assert float(s_measure(torch.zeros(8, 8), empty)) == 1.0 and float(mae(torch.zeros(8, 8), empty)) == 0.0


def test_a_batch_is_each_by_itself() -> None:
    maps = torch.rand(2, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    masks = maps > 0.6
    for measure in MEASURES.values():
        found = measure(maps, masks)
        assert found.shape == (2, 3) and found.dtype == torch.float64
        assert float(found[1, 2]) == float(measure(maps[1, 2], masks[1, 2]))


def test_mae_by_hand() -> None:
    assert float(mae(torch.tensor([[0.25, 1.0]]), torch.tensor([[False, True]]))) == 0.125


@pytest.mark.parametrize(
    ("p", "g"),
    [
        (torch.zeros(4, 4), torch.zeros(4, 4)),
        (torch.zeros(4, 5), torch.zeros(4, 4, dtype=torch.bool)),
        (torch.full((4, 4), 1.5), torch.zeros(4, 4, dtype=torch.bool)),
        (torch.full((4, 4), float("nan")), torch.zeros(4, 4, dtype=torch.bool)),
    ],
)
def test_what_is_no_map_or_mask_is_refused(p: Tensor, g: Tensor) -> None:
    for measure in MEASURES.values():
        with pytest.raises(ValueError, match="map"):
            measure(p, g)
