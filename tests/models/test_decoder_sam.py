"""The decoder for many prompts against transformers' own, and prompts decoded in parts."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from redsam.models import Encoding, Segmenter, initialise, load, pipeline, tiny
from redsam.models.attention import Attention, use
from redsam.prompts import Prompt, box, mask, point

SIDE = 32  # of the feature map: 1024 tokens, from which the decoder takes the other way
PRIOR = np.zeros((300, 400), dtype=bool)
PRIOR[50:150, 60:200] = True
ASKED: dict[str, list[list[Prompt]]] = {
    "many points on one of two images": [[point(10, 20), point(100, 200), point(50, 50)], []],
    "one point": [[point(10, 20)], []],
    "boxes on both": [[box(10, 20, 100, 200), box(1, 2, 50, 60)], [box(3, 4, 50, 80)]],
    "masks": [[mask(PRIOR), mask(PRIOR)], []],
    "all kinds": [[mask(PRIOR), point(4, 5), point(6, 7)], [box(3, 4, 50, 80), point(9, 9)]],
}


@pytest.fixture(scope="module")
def net() -> nn.Module:
    """SAM's own decoder behind an encoder of one narrow block."""
    from transformers import SamConfig, SamModel

    vision = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "mlp_dim": 8}
    config = SamConfig(
        vision_config=vision | {"image_size": 16 * SIDE}, prompt_encoder_config={"image_size": 16 * SIDE}
    )
    return initialise(SamModel(config), seed=0)


def features(segmenter: Segmenter, dtype: torch.dtype) -> Encoding:
    # A seed for which no ReLU of the prompts' tokens stands within float32's rounding of zero: with 0 one does (at
    # 9e-9), and transformers' own gradient in float32 is 7e-4 from its float64.
    maps = torch.randn(2, 256, SIDE, SIDE, dtype=dtype, generator=torch.Generator().manual_seed(2)).requires_grad_()
    return Encoding(features=maps, extra=(), frames=(segmenter.frame(300, 400),) * 2)


def answers(segmenter: Segmenter, asked: list[list[Prompt]], multimask: bool = True) -> list[Tensor]:
    """Logits, predicted IoU, and the gradient of a random projection of both with regard to the features."""
    encoding = features(segmenter, segmenter.dtype)
    found = segmenter.decode(encoding, asked, multimask=multimask)
    weights = torch.randn(found.low_res.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    total = (found.low_res * weights.to(segmenter.dtype)).sum() + found.iou.sum()
    return [found.low_res.detach(), found.iou.detach(), *torch.autograd.grad(total, encoding.features)]


def worst(found: list[Tensor], wanted: list[Tensor]) -> float:
    return max(float((a - b).norm() / b.norm()) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("asked", ASKED.values(), ids=list(ASKED))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_decoder_of_transformers(net: nn.Module, asked: list[list[Prompt]], dtype: torch.dtype) -> None:
    segmenter = load(copy.deepcopy(net).to(dtype))
    for multimask in (True, False):
        found: dict[str, list[Tensor]] = {}
        ways: tuple[Attention, ...] = ("official", "auto")
        for way in ways:
            use(segmenter.model, way)
            found[way] = answers(segmenter, asked, multimask)
        assert worst(found["auto"], found["official"]) < (2e-6 if dtype == torch.float32 else 1e-14)
        assert not torch.equal(found["auto"][0], found["official"][0]), "nothing was replaced"


def test_an_exact_answer_comes_from_transformers_bit_for_bit(net: nn.Module) -> None:
    image = torch.randint(0, 256, (1, 3, 300, 400), generator=torch.Generator().manual_seed(4)) / 255
    asked = [[point(10, 20), box(3, 4, 50, 80), point(5, 6)]]
    one, two = (load(copy.deepcopy(net), attention=way).predict(image, asked)[0] for way in ("auto", "official"))  # type: ignore[arg-type]
    assert torch.equal(one.logits, two.logits) and torch.equal(one.iou, two.iou)


def test_a_decoder_with_other_layers_computes_as_they_say(net: nn.Module) -> None:
    """LoRA stands where a linear layer stood: its weights must not be passed by."""

    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    changed: Any = copy.deepcopy(net)
    changed.mask_decoder.transformer.layers[0].cross_attn_token_to_image.v_proj.__class__ = Doubled
    asked = ASKED["one point"]
    wanted = answers(load(copy.deepcopy(changed), attention="official"), asked)
    assert all(torch.equal(a, b) for a, b in zip(answers(load(changed), asked), wanted, strict=True))
    assert worst(wanted, answers(load(copy.deepcopy(net)), asked)) > 1e-3


@pytest.mark.parametrize("family", ["sam", "sam2"])
def test_prompts_in_parts_answer_and_learn_the_same(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = tiny(family, seed=3)
    image = torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    asked = [[point(5 + 3 * i, 10 + 2 * i) for i in range(7)] + [box(5, 5, 40, 30)]]

    def run() -> tuple[Tensor, Tensor, int]:
        leaf = image.clone().requires_grad_()
        encoding = segmenter.encode(leaf)
        kept: dict[int, int] = {}

        def pack(x: Tensor) -> Tensor:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            found = segmenter.decode(encoding, asked)
        total = (found.low_res * torch.linspace(-1, 1, found.low_res.numel()).view_as(found.low_res)).sum()
        return found.low_res.detach(), torch.autograd.grad(total, leaf)[0], sum(kept.values())

    whole = run()
    called: list[int] = []
    original = segmenter._decode_group

    def counted(maps: Tensor, *args: Any, **kwargs: Any) -> Any:
        called.append(len(maps))
        return original(maps, *args, **kwargs)

    monkeypatch.setattr(segmenter, "_decode_group", counted)
    segmenter.decode_bytes = 3 * pipeline.kept_bytes(segmenter.encode(image))
    parts = run()
    assert called[:4] == [3, 3, 1, 1] and sorted(called) == [1, 1, 1, 3, 3, 3, 3]
    torch.testing.assert_close(parts[0], whole[0], rtol=1e-5, atol=1e-6)
    assert worst([parts[1]], [whole[1]]) < 1e-5
    assert parts[2] < whole[2] / 2
