"""Every registered tuning, on SAM and SAM 2: counted, the original at first, gone without a trace, whole in a delta."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from redsam import registry
from redsam.models import Segmenter, tiny
from redsam.registry import spec_of
from redsam.tuning import Delta, Tuning, apply_delta
from redsam.tuning.base import photograph, prove_frozen
from redsam.tuning.delta import lay
from tests.tuning.conftest import METHODS

IMAGE = torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(0))


def features(segmenter: Segmenter) -> Tensor:
    with torch.no_grad():
        return segmenter.encode(IMAGE).features


@pytest.mark.parametrize("name", METHODS)
def test_says_what_it_is(name: str) -> None:
    entry = registry.get("defense", name)
    assert {"paper", "year", "url", "random", "differentiable"} <= set(entry.meta)
    assert entry.obj.__doc__ and (name == "random" or "Deviation" in entry.obj.__doc__)
    assert spec_of(entry.obj())["name"] == name


@pytest.mark.parametrize("family", ["sam", "sam2"])
def test_from_attaching_to_a_delta_on_the_original(family: str, method: Tuning, tmp_path: Path) -> None:
    segmenter, fresh = tiny(family, seed=1), tiny(family, seed=1)
    before, original, clean = photograph(segmenter.model), features(segmenter), segmenter.fingerprint()
    attached = method.attach(segmenter.model, seed=3)

    live = [p for p in segmenter.model.parameters() if p.requires_grad]
    assert attached.count == sum(p.numel() for p in live) == sum(p.numel() for p in attached.parameters.values()) > 0
    assert torch.equal(features(segmenter), original)
    with attached.frozen():
        assert not any(p.requires_grad for p in segmenter.model.parameters())

    random = torch.Generator().manual_seed(0)
    moved = {n: v + 0.05 * torch.randn(v.shape, generator=random) for n, v in attached.start.items()}
    attached.put(attached.shortened(moved, 1.0))
    trained = features(segmenter)
    patches = attached.patches()
    attached.release()
    prove_frozen(segmenter.model, before)
    assert torch.equal(features(segmenter), original) and not any(p.requires_grad for p in segmenter.model.parameters())

    lay(segmenter.model, patches)
    assert torch.allclose(features(segmenter), trained, atol=1e-3)
    assert segmenter.fingerprint() != clean
    if name_of(method) != "decoder":  # which comes after the features
        assert not torch.equal(trained, original)
    delta = Delta(
        method=spec_of(method), model=segmenter.name, before=clean, after=segmenter.fingerprint(), patches=patches
    )
    delta.save(tmp_path / "delta.safetensors")
    assert delta.numbers == attached.count
    apply_delta(fresh, tmp_path / "delta.safetensors")
    assert photograph(fresh.model) == photograph(segmenter.model)


def name_of(method: Tuning) -> str:
    return str(spec_of(method)["name"])


def test_a_frozen_tensor_that_moved_is_found() -> None:
    segmenter = tiny("sam")
    before = photograph(segmenter.model)
    name, weight = list(segmenter.model.named_parameters())[5]
    with torch.no_grad():
        weight.view(-1)[0] += 1e-6
    with pytest.raises(RuntimeError, match=f"1 frozen tensors changed.*{name}"):
        prove_frozen(segmenter.model, before)


def test_half_the_way_is_half_the_change() -> None:
    segmenter = tiny("sam")
    attached = registry.create("defense", "svd").attach(segmenter.model)
    there = {n: v + 1 for n, v in attached.start.items()}
    assert all(torch.allclose(v, torch.full_like(v, 0.5)) for v in attached.shortened(there, 0.5).values())
    assert all(torch.equal(v, there[n]) for n, v in attached.shortened(there, 1.0).items())
