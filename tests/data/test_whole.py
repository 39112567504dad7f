"""The whole-image protocol: one question, the union of all objects."""

from __future__ import annotations

import torch

from redsam.data.whole import WholeImage
from redsam.types import Scene


def test_one_question_for_the_union() -> None:
    masks = torch.zeros(2, 20, 30, dtype=torch.bool)
    masks[0, :5, :5], masks[1, 10:, 20:] = True, True
    sample = WholeImage()(Scene(id="a", image=torch.zeros(3, 20, 30), masks=masks), seed=0)
    assert [p.box for p in sample.prompts] == [(0, 0, 30, 20)] and sample.masks is not None
    assert torch.equal(sample.masks, masks.any(0, keepdim=True))


def test_nothing_annotated_is_said() -> None:
    scene = Scene(id="a", image=torch.zeros(3, 20, 30), masks=torch.zeros(0, 20, 30, dtype=torch.bool))
    sample = WholeImage()(scene, seed=0)
    assert not sample.prompts and "no annotated object" in str(sample.meta["skip"])
