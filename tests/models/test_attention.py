"""Exact attention against transformers' own: answers, gradients, what it keeps, and how to turn it off."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from redsam.errors import InputError
from redsam.models import attention as exact
from redsam.models import load, tiny
from redsam.models.attention import Attention, attend, blocked, choose, officially, use
from redsam.prompts import point

SIZE = 320  # 40 x 40 tokens: over `MANY`, so that "auto" takes every way there is
WAYS: tuple[Attention, ...] = ("auto", "folded", "blocked")


def network(kind: str, how: str) -> nn.Module:
    """A windowed and a global block of head size 64, transformers' start with std 0.02, random relative positions."""
    import transformers as hf

    vision = {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1, "image_size": SIZE, "patch_size": 8,
        "window_size": 14, "global_attn_indexes": [1], "initializer_range": 0.02, "num_pos_feats": 16,
        "output_channels": 32, "mlp_dim": 64,
    }  # fmt: skip
    head = {"hidden_size": 32, "mlp_dim": 64, "iou_head_hidden_dim": 32}
    config = getattr(hf, f"{kind}Config")(
        vision_config=vision, prompt_encoder_config={"hidden_size": 32, "image_size": SIZE, "patch_size": 8},
        mask_decoder_config=head | ({"vit_dim": 64} if kind == "SamHQ" else {}),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model: Any = getattr(hf, f"{kind}Model")._from_config(config, attn_implementation=how)
        generator = torch.Generator().manual_seed(1)
        for name, parameter in model.named_parameters():
            if "rel_pos" in name:
                parameter.normal_(std=0.5, generator=generator)
    return model.eval()  # type: ignore[no-any-return]


def answer(model: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The encoder's output and the gradient of a random projection of it with regard to the pixels."""
    pixels = torch.randn(1, 3, SIZE, SIZE, dtype=dtype, generator=torch.Generator().manual_seed(2)).requires_grad_()
    out = model.vision_encoder(pixels).last_hidden_state
    weights = torch.randn(out.shape, dtype=dtype, generator=torch.Generator().manual_seed(3))
    return out.detach(), torch.autograd.grad((out * weights).sum(), pixels)[0]


def distance(found: Tensor, wanted: Tensor) -> float:
    return float(((found - wanted).norm() / wanted.norm()).detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["Sam", "SamHQ"])
def test_equals_the_eager_path_of_transformers(kind: str, dtype: torch.dtype) -> None:
    wanted = answer(network(kind, "eager").to(dtype), dtype)
    model = load(network(kind, "sdpa").to(dtype)).model
    # The eager path takes its softmax in float32 even in a float64 model, which bounds what a comparison can show.
    limit = 1e-6 if dtype == torch.float32 else 1e-8
    for way in WAYS:
        use(model, way)
        assert max(distance(a, b) for a, b in zip(answer(model, dtype), wanted, strict=True)) < limit, way
    use(model, "official")
    official = answer(model, dtype)
    use(model, "auto")
    assert not all(torch.equal(a, b) for a, b in zip(answer(model, dtype), official, strict=True)), (
        "nothing was replaced"
    )


def pieces(groups: int, height: int, width: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    shapes = [(height * width, 5)] * 3 + [(height * width, height), (height * width, width)]
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(groups, *s, dtype=dtype, generator=generator).requires_grad_() for s in shapes]


def written_out(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, *, scale: float) -> Tensor:
    """The formula in the head of attention.py, every score at once."""
    bias = (rel_h[..., :, None] + rel_w[..., None, :]).flatten(2)
    return (scale * q @ k.mT + bias).softmax(-1) @ v


@pytest.mark.parametrize("block", [1, 17, 100, 2**19])
def test_every_gradient_and_every_size_of_block(block: int) -> None:
    """Grids that are no square and blocks that do not divide them; the gradients of the tables too, for tuning."""
    parts = pieces(3, 4, 7)
    wanted = torch.autograd.grad(written_out(*parts, scale=0.3).square().sum(), parts)
    found = torch.autograd.grad(blocked(*parts, scale=0.3, block=block).square().sum(), parts)
    assert max(distance(a, b) for a, b in zip(found, wanted, strict=True)) < 1e-14
    folded = torch.autograd.grad(attend("folded", *parts, scale=0.3).square().sum(), parts)
    assert max(distance(a, b) for a, b in zip(folded, wanted, strict=True)) < 1e-14


def test_large_scores_overflow_nowhere() -> None:
    parts = [p.detach() * 300 for p in pieces(2, 3, 3, torch.float32)]
    assert distance(blocked(*parts, scale=1.0), written_out(*parts, scale=1.0)) < 1e-5


def test_flex_attention_answers_the_same() -> None:
    parts = [p.detach() for p in pieces(2, 4, 4, torch.float32)]  # on a CPU it has no backward pass
    assert distance(attend("flex", *parts, scale=0.3), written_out(*parts, scale=0.3)) < 1e-6


def test_half_precision_is_closer_than_its_own_rounding() -> None:
    parts = [p.detach() for p in pieces(2, 4, 4, torch.float32)]
    half = blocked(*[p.bfloat16() for p in parts], scale=0.3)
    assert half.dtype == torch.bfloat16 and distance(half.float(), written_out(*parts, scale=0.3)) < 2e-2


class _Largest(TorchDispatchMode):
    """The most elements any operation in here returned."""

    most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple | list) else [out]:
            if isinstance(one, Tensor):
                self.most = max(self.most, one.untyped_storage().nbytes() // one.element_size())
        return out


def test_no_square_of_the_tokens_is_ever_made(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = load(network("Sam", "sdpa")).model
    tokens, seen = (SIZE // 8) ** 2, {}
    # `folded` leaves the global block to PyTorch's kernel, whose own memory no dispatch shows: only what it keeps.
    for way in ("official", "blocked"):
        use(model, way)  # type: ignore[arg-type]
        with _Largest() as record:
            answer(model, torch.float32)
        seen[way] = record.most
    assert seen["official"] >= tokens**2 and seen["blocked"] < tokens**2 / 2


def test_the_exact_answer_is_transformers_bit_for_bit() -> None:
    """What is recorded as a model's masks comes from its own code; only an attack's gradients take the fast way."""
    net: Any = network("Sam", "sdpa")
    image = torch.randint(0, 256, (1, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(4)) / 255
    segmenter = load(copy.deepcopy(net))
    pixels = segmenter.frame(SIZE, SIZE).fit_exact((image * 255).round().to(torch.uint8))
    with torch.no_grad():
        wanted = net.vision_encoder(pixels).last_hidden_state
        assert torch.equal(segmenter.encode(image, exact=True).features, wanted)
        assert not torch.equal(segmenter.encode(image).features, wanted)
        off = load(copy.deepcopy(net), attention="official")
        fitted = off.frame(SIZE, SIZE).fit(image)
        assert torch.equal(off.encode(image).features, net.vision_encoder(fitted).last_hidden_state)
    masks = segmenter.predict(image, [[point(100, 100)]])[0]
    assert torch.equal(masks.logits, off.predict(image, [[point(100, 100)]])[0].logits)


def test_weights_names_copies_and_files_stay(tmp_path: Path) -> None:
    net: Any = network("SamHQ", "sdpa")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    model: Any = load(net).model
    after = model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[n], before[n]) for n in before)
    model.save_pretrained(tmp_path)
    again: Any = type(net).from_pretrained(tmp_path)
    assert type(again.vision_encoder.layers[0].attn).__name__ == "SamHQVisionSdpaAttention"
    assert list(again.state_dict()) == list(before)
    wanted = answer(model, torch.float32)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert all(torch.equal(a, b) for a, b in zip(answer(copied, torch.float32), wanted, strict=True))


def test_a_model_that_was_asked_for_its_attention_weights_gives_them() -> None:
    model: Any = load(network("Sam", "eager")).model
    assert type(model.vision_encoder.layers[0].attn).__name__ == "SamVisionAttention"


def test_lab_models_compute_as_they_always_did() -> None:
    """Small heads and few tokens gain nothing, so their published numbers stay bit for bit."""
    image = torch.rand(1, 3, 100, 120, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, two = (load("lab-b", attention=way).encode(image).features for way in ("auto", "official"))  # type: ignore[arg-type]
    assert torch.equal(one, two)


def test_the_rule() -> None:
    sizes = {"device": "cpu", "dtype": torch.float32, "head": 64}
    assert choose("auto", keys=4096, **sizes) == "blocked" and choose("auto", keys=196, **sizes) == "folded"
    assert choose("auto", keys=64, **sizes) == "official" and choose("flex", keys=64, **sizes) == "flex"
    assert choose("auto", device="cuda", dtype=torch.bfloat16, head=80, keys=4096) == "folded"
    with officially(True), officially(False):
        assert choose("blocked", keys=4096, **sizes) == "official"
    with pytest.raises(InputError, match="no attention 'fast'"):
        use(tiny("sam").model, "fast")  # type: ignore[arg-type]


def test_autocast_leaves_the_blocks_alone() -> None:
    parts = pieces(2, 4, 4, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = blocked(*parts, scale=0.3)
    assert distance(out, written_out(*parts, scale=0.3)) < 1e-6


def test_codes_are_one_row_and_one_column() -> None:
    codes = exact.grid_codes(3, 4, device=torch.device("cpu"), dtype=torch.float32)
    token = torch.arange(12)
    assert torch.equal(codes, torch.cat([F.one_hot(token // 4, 3), F.one_hot(token % 4, 4)], 1).float())
