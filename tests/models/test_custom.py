"""`wrap`: a user's own module behind the interface."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from redsam.errors import InputError
from redsam.models import wrap
from redsam.prompts import Prompt, box, mask, point, points


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 8, stride=8)
        self.seen: list[dict[str, Any]] = []

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return self.stem(pixels), pixels.mean(1, keepdim=True)

    def decode(self, features: Tensor, grey: Tensor, **prompt: Any) -> tuple[Tensor, Tensor]:
        self.seen.append(prompt)
        count = 3 if prompt["multimask"] else 1
        return features[:, :count], features.mean((2, 3))[:, :count] + grey.mean((1, 2, 3))[:, None]


@pytest.fixture
def net() -> _Net:
    torch.manual_seed(0)
    return _Net()


def test_two_functions_make_a_segmenter(net: _Net) -> None:
    model = wrap(net, image_size=32, embed=net.encode, decode=net.decode, mask_size=(8, 8))
    image = torch.rand(2, 3, 20, 40).requires_grad_()
    prior = np.ones((20, 40), dtype=bool)
    prompts: list[list[Prompt]] = [[point(10, 5), box(0, 0, 40, 20)], [mask(prior), points([(0, 0), (20, 10)], [1, 0])]]
    prediction = model.decode(model.encode(image), prompts)
    prediction.logits()[0].sum().backward()
    assert image.grad is not None and image.grad[0].abs().sum() > 0
    assert prediction.owner == (0, 0, 1, 1) and [len(x) for x in prediction.logits()] == [2, 2]
    assert net.seen[0]["points"].tolist() == [[[[8.0, 4.0]]]] and net.seen[0]["boxes"] is None
    assert net.seen[1]["boxes"].tolist() == [[[0.0, 0.0, 32.0, 16.0]]] and net.seen[1]["points"] is None
    assert net.seen[2]["masks"].shape == (1, 1, 8, 8)
    assert net.seen[3]["labels"].tolist() == [[[1, 0]]]


def test_predict_single(net: _Net) -> None:
    model = wrap(net, image_size=32, embed=net.encode, decode=net.decode)
    answer = model.predict(torch.zeros(1, 3, 20, 40), [[point(1, 1)]], select="single")[0]
    assert answer.masks.shape == (1, 20, 40) and net.seen[0]["multimask"] is False


def test_misuse_is_named(net: _Net) -> None:
    model = wrap(net, image_size=32, embed=net.encode, decode=net.decode, name="mine")
    encoding = model.encode(torch.zeros(1, 3, 20, 40))
    with pytest.raises(InputError, match="mine takes no mask prompt"):
        model.decode(encoding, [[mask(np.ones((20, 40), dtype=bool))]])
    with pytest.raises(InputError, match="takes no text"):
        model.decode(encoding, [[Prompt(text="cat")]])
    with pytest.raises(InputError, match="outside"):
        model.decode(encoding, [[point(40, 1)]])
    with pytest.raises(InputError, match="1 images came with 2"):
        model.decode(encoding, [[point(1, 1)], []])
    with pytest.raises(InputError, match="no prompt"):
        model.decode(encoding, [[]])
    with pytest.raises(InputError, match="encode takes float images"):
        model.encode(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
    wrong = wrap(net, image_size=32, embed=net.encode, decode=lambda f, *_, **__: (f, f.mean((1, 2, 3))))
    with pytest.raises(InputError, match="Return logits GxMxhxw"):
        wrong.decode(wrong.encode(torch.zeros(1, 3, 20, 40)), [[point(1, 1)]])
