"""Selection rules on hand-made predictions."""

from __future__ import annotations

import pytest
import torch

from redsam.errors import InputError
from redsam.models import Prediction
from redsam.models.geometry import Frame
from redsam.models.prediction import select_logits


def _prediction() -> Prediction:
    """Two images of 8 x 8; masks of the first prompt: 4, 16 and 36 pixels, predicted IoU highest for the smallest."""
    low_res = torch.full((2, 3, 8, 8), -1.0)
    for m, size in enumerate((2, 4, 6)):
        low_res[:, m, :size, :size] = 1.0
    frame = Frame(kind="stretch", height=8, width=8, side=8)
    iou = torch.tensor([[0.9, 0.5, 0.1], [0.2, 0.3, 0.3]])
    return Prediction(low_res=low_res.requires_grad_(), iou=iou, owner=(0, 1), frames=(frame, frame))


def test_each_rule_picks_its_mask() -> None:
    prediction = _prediction()
    reference = [torch.zeros(1, 8, 8, dtype=torch.bool) for _ in range(2)]
    reference[0][0, :4, :5] = True
    for select, choices in (("iou", (0, 1)), ("area", (2, 2)), ("best", (1, 0))):
        _, picked, ious = select_logits(prediction, select=select, reference=reference)  # type: ignore[arg-type]
        assert tuple(int(p) for p in torch.cat(picked)) == choices
        assert torch.equal(torch.cat(ious), prediction.iou[torch.arange(2), torch.tensor(choices)])


def test_best_counts_two_empty_masks_as_equal() -> None:
    frame = Frame(kind="stretch", height=4, width=4, side=4)
    low_res = torch.stack([torch.ones(4, 4), -torch.ones(4, 4)])[None]
    prediction = Prediction(low_res=low_res, iou=torch.zeros(1, 2), owner=(0,), frames=(frame,))
    empty = [torch.zeros(1, 4, 4, dtype=torch.bool)]
    assert int(select_logits(prediction, select="best", reference=empty)[1][0]) == 1


def test_gradient_reaches_the_chosen_mask_only() -> None:
    prediction = _prediction()
    prediction.logits(select="area")[0].sum().backward()
    grad = prediction.low_res.grad
    assert grad is not None and (grad[0, 2] != 0).all() and (grad[0, :2] == 0).all() and (grad[1] == 0).all()


def test_misuse_is_named() -> None:
    with pytest.raises(InputError, match="multimask=False"):
        _prediction().logits(select="single")
    with pytest.raises(InputError, match="reference"):
        _prediction().logits(select="best")
    with pytest.raises(InputError, match="Known: iou"):
        _prediction().logits(select="largest")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="The reference is"):
        _prediction().logits(select="best", reference=[torch.zeros(2, 8, 8, dtype=torch.bool)] * 2)
