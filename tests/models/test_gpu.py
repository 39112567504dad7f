"""On a CUDA device: the same answers as on the CPU, half precision, and the exact path bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from redsam.models import load, tiny
from redsam.models.resample import resize_like_pillow
from redsam.prompts import Prompt

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def test_answers_agree_with_the_cpu(
    family: str, make_picture: Callable[..., Tensor], make_prompts: Callable[[int, int], list[Prompt]]
) -> None:
    image, prompts = make_picture(47, 70)[None], [make_prompts(47, 70)]
    on_cpu = tiny(family, seed=3).predict(image, prompts)[0]
    model = load(tiny(family, seed=3).model, device="cuda")
    on_gpu = model.predict(image.cuda(), prompts)[0]
    torch.testing.assert_close(on_gpu.logits.cpu(), on_cpu.logits, rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_has_gradients(
    family: str,
    make_picture: Callable[..., Tensor],
    make_prompts: Callable[[int, int], list[Prompt]],
    dtype: torch.dtype,
) -> None:
    model = load(tiny(family, seed=3).model, device="cuda", dtype=dtype)
    image = make_picture(47, 70)[None].cuda().requires_grad_()
    logits = model.decode(model.encode(image), [make_prompts(47, 70)]).logits()[0]
    logits.mean().backward()
    assert model.dtype == dtype and image.grad is not None
    assert torch.isfinite(image.grad).all() and image.grad.abs().sum() > 0


def test_exact_resampling_is_the_same_on_both() -> None:
    image = torch.randint(0, 256, (1, 3, 321, 481), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(resize_like_pillow(image, (171, 256)), resize_like_pillow(image.cuda(), (171, 256)).cpu())
