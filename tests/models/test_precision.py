"""Half precision and a compiled encoder serve the gradients; what is reported as the model's answer sees neither."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from redsam.attacks.pgd import PGD
from redsam.models import Segmenter, load, tiny
from redsam.prompts import box, point
from redsam.threat import Threat

PROMPTS = [[point(30, 20), box(5, 5, 40, 30)]]


@pytest.fixture
def image() -> Tensor:
    return torch.randint(0, 256, (1, 3, 40, 56), generator=torch.Generator().manual_seed(0)) / 255


def slope(segmenter: Segmenter, image: Tensor) -> Tensor:
    leaf = image.clone().requires_grad_()
    logits = segmenter.decode(segmenter.encode(leaf), PROMPTS).logits()[0]
    return torch.autograd.grad(logits.square().mean(), leaf)[0]


# SAM 2 with random weights: 0.953 with a processor's own bfloat16 instructions, above 0.97 without them (oneDNN's
# ONEDNN_MAX_CPU_ISA=AVX512_CORE); a wrong gradient has 0.
@pytest.mark.parametrize(("family", "least"), [("sam", 0.97), ("sam-hq", 0.97), ("sam2", 0.9)])
def test_autocast_bends_the_gradient_a_little_and_the_answer_not_at_all(
    family: str, least: float, image: Tensor
) -> None:
    segmenter = tiny(family, seed=3)
    wanted, answer = slope(segmenter, image), segmenter.predict(image, PROMPTS)[0]
    segmenter.autocast = torch.bfloat16
    found = slope(segmenter, image)
    assert found.dtype == torch.float32 and not torch.equal(found, wanted)
    assert F.cosine_similarity(found.flatten(), wanted.flatten(), dim=0) > least
    assert torch.equal(segmenter.predict(image, PROMPTS)[0].logits, answer.logits)


def test_an_attack_in_half_precision_is_as_strong_on_a_trained_model() -> None:
    """One photograph and few steps; benchmarks/lab_pgd.py --autocast shows it on a hundred."""
    from redsam.data import open_data

    scene = open_data("demo")[0]
    image, prompts = scene.image[None], [[point(192, 192)]]
    objective = []
    for dtype in (None, torch.bfloat16):
        segmenter = load("lab-b")
        segmenter.autocast = dtype
        result = PGD(steps=5, keep_best=False).run(segmenter, image, prompts, threat=Threat(), seeds=[0])
        segmenter.autocast = None
        logits = segmenter.predict(result.images.float() / 255, prompts)[0].logits
        objective.append(float((logits.clamp_min(-10) + 10).square().mean()))
        clean = segmenter.predict(image, prompts)[0].logits
        assert objective[-1] < 0.8 * float((clean.clamp_min(-10) + 10).square().mean())
    assert objective[1] < 1.1 * objective[0]


def test_a_compiled_encoder_serves_gradients_only(image: Tensor) -> None:
    segmenter = tiny("sam", seed=3)
    wanted, answer = slope(segmenter, image), segmenter.predict(image, PROMPTS)[0]
    names = list(segmenter.model.state_dict())
    segmenter.compile(backend="aot_eager")  # without a compiler of machine code: what is traced is what matters
    torch.testing.assert_close(slope(segmenter, image), wanted, rtol=1e-4, atol=1e-8)
    assert torch.equal(segmenter.predict(image, PROMPTS)[0].logits, answer.logits)
    assert list(segmenter.model.state_dict()) == names

    def never(pixels: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        raise AssertionError("an exact answer was asked of the compiled encoder")

    segmenter.compiled = never
    segmenter.predict(image, PROMPTS)
    with pytest.raises(AssertionError, match="compiled"):
        segmenter.encode(image)
