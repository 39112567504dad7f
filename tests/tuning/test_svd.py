"""Which layers, how many numbers, and the mathematics against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn
from transformers import Sam2Config, Sam2HieraDetConfig, Sam2Model, Sam2VisionConfig, SamConfig, SamModel

from redsam.errors import InputError
from redsam.models import load, tiny
from redsam.tuning.patches import SingularValues
from redsam.tuning.svd import Scaled, Svd, chosen_layers


def sam(width: int, depth: int) -> nn.Module:
    """A published SAM's architecture, without its weights."""
    with torch.device("meta"):
        return SamModel(SamConfig(vision_config={"hidden_size": width, "num_hidden_layers": depth}))


def sam2(channels: list[int]) -> nn.Module:
    """A published SAM 2's neck: channels of the four stages, deepest first."""
    stages = {"embed_dim_per_stage": channels[::-1], "hidden_size": channels[-1]}
    backbone = Sam2HieraDetConfig(**stages)
    with torch.device("meta"):
        return Sam2Model(Sam2Config(vision_config=Sam2VisionConfig(
            backbone_config=backbone, backbone_channel_list=channels)))  # fmt: skip


@pytest.mark.parametrize(("width", "depth"), [(768, 12), (1024, 24), (1280, 32)], ids=["base", "large", "huge"])
def test_published_sams_have_512_in_the_neck(width: int, depth: int) -> None:
    assert chosen_layers(sam(width, depth), Svd()) == [
        ("vision_encoder.neck.conv1", 256), ("vision_encoder.neck.conv2", 256)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "channels", [[768, 384, 192, 96], [896, 448, 224, 112], [1152, 576, 288, 144]], ids=["tiny", "base+", "large"]
)
def test_published_sam2s_have_512_in_the_two_deepest_fpn_convolutions(channels: list[int]) -> None:
    assert chosen_layers(sam2(channels), Svd()) == [
        ("vision_encoder.neck.convs.0", 256), ("vision_encoder.neck.convs.1", 256)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lab-b", [("neck.conv1", 128), ("neck.conv2", 128), ("layers.5.mlp.lin2", 160), ("layers.5.mlp.lin1", 96)]),
        ("lab2", [("neck.convs.0", 128), ("neck.convs.1", 128), ("neck.convs.2", 128), ("neck.convs.3", 64),
                  ("backbone.blocks.9.mlp.proj_out", 64)]),
    ],
)  # fmt: skip
def test_lab_models_train_exactly_512_numbers(name: str, expected: list[tuple[str, int]]) -> None:
    model = load(name).model
    assert chosen_layers(model, Svd()) == [(f"vision_encoder.{layer}", rank) for layer, rank in expected]
    attached = Svd().attach(model)
    assert attached.count == sum(p.numel() for p in model.parameters() if p.requires_grad) == 512


@pytest.mark.parametrize(
    ("family", "first"),
    [("sam-hq", ["neck.conv1", "neck.conv2"]), ("sam3", ["neck.fpn_layers.2.proj1", "neck.fpn_layers.2.proj2"])],
)
def test_other_families_begin_in_their_necks_too(family: str, first: list[str]) -> None:
    names = [name for name, _ in chosen_layers(tiny(family).model, Svd())]
    assert names[:2] == [f"vision_encoder.{n}" for n in first]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("shape", [(5, 7), (6, 4, 3, 3), (8, 3, 1, 1)])
def test_new_weight_is_what_numpy_makes_of_it(shape: tuple[int, ...], signed: bool) -> None:
    random = torch.Generator().manual_seed(1)
    weight = torch.randn(shape, generator=random)
    rank = 3
    change = torch.randn(rank, generator=random) * 0.5
    patch = SingularValues(weight="w", change=change, signed=signed)
    u, s, vt = np.linalg.svd(weight.double().numpy().reshape(shape[0], -1), full_matrices=False)
    s[:rank] *= 1 + change.double().numpy() if signed else np.exp(change.double().numpy())
    expected = torch.from_numpy((u * s) @ vt).reshape(shape).float()
    assert torch.allclose(patch.made(weight), expected, atol=1e-6)

    live = Scaled(weight, rank=rank, signed=signed)
    assert torch.equal(live(weight), weight)
    with torch.no_grad():
        live.change.copy_(change)
    assert torch.allclose(live(weight), expected, atol=1e-5)
    zero = SingularValues(weight="w", change=torch.zeros(rank), signed=signed)
    assert torch.equal(zero.made(weight), weight)


def test_another_librarys_svd_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redsam.tuning.patches.GUARD", 1e-12)  # so that a matrix this small has some
    random = torch.Generator().manual_seed(4)
    weight = torch.randn(96, 900, generator=random) * 0.05
    patch = SingularValues(weight="w", change=torch.randn(96, generator=random)).guarded(weight)
    here = patch.made(weight)
    assert 0 < len(patch.guard) < weight.numel() / 100 and patch.numbers == 96

    def other(matrix: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = scipy.linalg.svd(matrix.double().numpy(), full_matrices=False, lapack_driver="gesvd")
        return tuple(torch.from_numpy(x * (1 + 3e-16)) for x in found)

    monkeypatch.setattr("redsam.tuning.patches.decomposed", other)
    assert torch.equal(patch.made(weight), here)
    loose = SingularValues(weight="w", change=patch.change).made(weight)
    wrong = (loose != here).flatten().nonzero().flatten()
    assert set(wrong.tolist()) <= set(patch.guard.tolist())


def test_unsigned_values_stay_positive_and_signed_ones_may_turn() -> None:
    weight = torch.diag(torch.tensor([3.0, 2.0, 1.0]))
    change = torch.full((3,), -1.5)
    assert float(torch.det(SingularValues(weight="w", change=change).made(weight))) > 0
    assert float(torch.det(SingularValues(weight="w", change=change, signed=True).made(weight))) < 0


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"count": 40}, [("vision_encoder.neck.conv1", 32), ("vision_encoder.neck.conv2", 8)]),
        ({"rank": 4, "count": 8}, [("vision_encoder.neck.conv1", 4), ("vision_encoder.neck.conv2", 4)]),
        ({"layers": r"layers\.1\.attn\.proj$"}, [("vision_encoder.layers.1.attn.proj", 32)]),
        ({"layers": r"neck|vision.*layers\.1\.mlp", "rank": 2},
         [("vision_encoder.neck.conv1", 2), ("vision_encoder.neck.conv2", 2), ("vision_encoder.layers.1.mlp.lin2", 2),
          ("vision_encoder.layers.1.mlp.lin1", 2)]),
    ],
)  # fmt: skip
def test_layers_can_be_chosen(fields: dict[str, Any], expected: list[tuple[str, int]]) -> None:
    assert chosen_layers(tiny("sam").model, Svd(**fields)) == expected


def test_wider_choices_hold_more_numbers() -> None:
    model = tiny("sam").model
    counts = [sum(r for _, r in chosen_layers(model, Svd(layers=k))) for k in ("neck", "encoder", "decoder", "all")]
    assert counts[0] == counts[1] == 352 < counts[3]  # the tiny model has fewer than 512 in its whole encoder
    assert counts[2] + counts[1] < counts[3]


@pytest.mark.parametrize(
    ("fields", "told"),
    [({"count": 10**6}, "have 352.*count=352"), ({"layers": "nowhere"}, "no layer answers to 'nowhere'"),
     ({"layers": "("}, "no regular expression")],
)  # fmt: skip
def test_what_does_not_fit_is_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        Svd(**fields).attach(tiny("sam").model)


@pytest.mark.parametrize("fields", [{"count": 0}, {"rank": 0}, {"regulariser": -1.0}])
def test_values_that_cannot_be_meant(fields: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Svd(**fields)


def test_a_model_without_a_known_neck_is_told_so() -> None:
    with pytest.raises(InputError, match="no neck convolutions.*layers=REGEX"):
        Svd().attach(nn.Sequential(nn.Conv2d(3, 4, 1)))


def test_the_regulariser_pulls_back() -> None:
    attached = Svd(regulariser=3.0).attach(tiny("sam").model)
    assert attached.penalty is not None and float(attached.penalty().detach()) == 0
    attached.put({n: torch.full_like(v, 0.5) for n, v in attached.start.items()})
    loss = attached.penalty()
    assert float(loss.detach()) == pytest.approx(3 * 0.25)
    slope = torch.autograd.grad(loss, list(attached.parameters.values()))
    assert all(bool((g > 0).all()) for g in slope)
    assert Svd().attach(tiny("sam").model).penalty is None
