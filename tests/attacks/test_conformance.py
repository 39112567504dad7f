"""Every registered attack, found by walking the registry: a new attack is covered by being there."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from redsam import registry
from redsam.attacks.base import Attack
from redsam.models import Segmenter, tiny
from redsam.prompts import Prompt, box, point
from redsam.threat import Threat
from redsam.types import from_uint8, to_uint8

ATTACKS = registry.entries("attack")
each = pytest.mark.parametrize("entry", ATTACKS, ids=lambda e: e.name)
# Budgets that are neither trivial nor the whole range, per norm, for small images.
TYPICAL = {"linf": 8 / 255, "l2": 1.0, "l0": 20, "shift": 6.0}
KINDS = ("white-box", "transfer", "score", "universal", "prompt")
# Options under which an attack is quick; each attack takes those that it has.
QUICK: dict[str, Any] = {"steps": 4, "queries": 30, "samples": 2, "grid": 3, "iterations": 3}


def short(entry: registry.Entry, **args: Any) -> Attack:
    """The attack with few steps; of the options given, those that it has."""
    names = {f.name for f in fields(entry.obj)}
    few = {"queries": 5} if "surrogates" in names else {}  # each of its queries is a white-box attack on surrogates
    chosen = {k: v for k, v in (QUICK | few | args).items() if k in names}
    return cast(Attack, registry.create("attack", entry.name, **chosen))


def pictures(count: int, height: int = 24, width: int = 32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return from_uint8(torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8))


def prompts(count: int) -> list[list[Prompt]]:
    choices: list[list[Prompt]] = [[point(5, 7)], [box(2, 3, 20, 18), point(9, 9)], [point(1, 1), point(20, 11)]]
    return [choices[i % 3] for i in range(count)]


@pytest.fixture(scope="module", autouse=True)
def small_surrogate(tiny_folder: Path) -> Iterator[None]:
    """Attacks that craft on an ensemble do so on a tiny model instead of the bundled ones."""
    QUICK["surrogates"] = (str(tiny_folder),)
    yield
    del QUICK["surrogates"]


@pytest.fixture(scope="module")
def sam() -> Segmenter:
    return tiny("sam", image_size=32)


def test_the_five_of_the_first_suite_are_there() -> None:
    assert {e.name for e in ATTACKS} >= {"fgsm", "bim", "pgd", "mifgsm", "apgd"}


@each
def test_it_declares_what_it_is(entry: registry.Entry) -> None:
    assert is_dataclass(entry.obj) and issubclass(entry.obj, Attack)
    assert {"kind", "paper", "year", "url", "norms", "knowledge", "cost"} <= set(entry.meta)
    assert set(entry.meta["norms"]) <= set(TYPICAL) and entry.meta["norms"]
    assert entry.meta["kind"] in KINDS and entry.meta["knowledge"]
    assert entry.summary and "eviation" in inspect.getdoc(entry.obj)  # type: ignore[operator]
    assert "run" not in vars(entry.obj)  # final: the base keeps the promises


@each
def test_it_survives_a_log(entry: registry.Entry) -> None:
    attack = short(entry, objective="dice", stop_at=0.1)
    spec = json.loads(json.dumps(registry.spec_of(attack)))
    again = registry.create("attack", spec["name"], **spec["args"])
    assert again == attack and spec["name"] == entry.name


@each
def test_a_batch_is_a_loop(entry: registry.Entry, sam: Segmenter) -> None:
    for norm in entry.meta["norms"]:
        threat = Threat(norm=norm, eps=TYPICAL[norm])
        together = short(entry).run(sam, pictures(3), prompts(3), threat=threat, seeds=[1, 2, 3])
        for i in range(3):
            alone = short(entry).run(sam, pictures(3)[i : i + 1], prompts(3)[i : i + 1], threat=threat, seeds=[i + 1])
            gap = (alone.images[0].int() - together.images[i].int()).abs()
            # Batched kernels sum in another order; where a gradient is all but zero its sign may differ.
            assert float((gap <= 1).float().mean()) >= 0.999
            assert torch.allclose(alone.losses[:, 0], together.losses[:, i], rtol=1e-4)


@each
def test_the_same_seed_gives_the_same_image(entry: registry.Entry, sam: Segmenter) -> None:
    threat = Threat(norm=entry.meta["norms"][0], eps=TYPICAL[entry.meta["norms"][0]])
    torch.manual_seed(1)
    one = short(entry).run(sam, pictures(1), prompts(1), threat=threat, seeds=[5])
    torch.manual_seed(2)  # the global generator is nobody's business
    state = torch.get_rng_state()
    two = short(entry).run(sam, pictures(1), prompts(1), threat=threat, seeds=[5])
    assert torch.equal(one.images, two.images) and torch.equal(state, torch.get_rng_state())


@each
def test_no_budget_returns_the_clean_image(entry: registry.Entry, sam: Segmenter) -> None:
    for norm in entry.meta["norms"]:
        result = short(entry).run(sam, pictures(2), prompts(2), threat=Threat(norm=norm, eps=0))
        assert torch.equal(result.images, to_uint8(pictures(2)))
        assert all(tuple(b) == (0.0, 0.0, 0, 0.0) for b in result.budget)


@each
def test_it_changes_something_and_lowers_its_objective(entry: registry.Entry, sam: Segmenter) -> None:
    for norm in entry.meta["norms"]:
        threat = Threat(norm=norm, eps=TYPICAL[norm])
        result = short(entry).run(sam, pictures(2), prompts(2), threat=threat)
        clean = short(entry).run(sam, pictures(2), prompts(2), threat=Threat(norm=norm, eps=0)).losses[0]
        assert all((b.shift if norm == "shift" else b.l0) > 0 for b in result.budget)
        if not entry.meta.get("noisy"):  # attacks whose losses are taken at random copies cannot be compared like this
            assert (result.losses.nan_to_num(torch.inf).min(0).values < clean).all()
        assert result.images.dtype == torch.uint8 and result.losses.shape[1] == 2
        assert len(result.budget) == len(result.flags) == len(result.steps) == 2
        assert not any(result.flags)


@each
def test_no_input_is_changed_in_place(entry: registry.Entry, sam: Segmenter) -> None:
    images, weights = pictures(2), sam.fingerprint()
    reference = [torch.ones(len(p), 24, 32, dtype=torch.bool) for p in prompts(2)]
    norm = entry.meta["norms"][0]
    short(entry).run(sam, images, prompts(2), threat=Threat(norm=norm, eps=TYPICAL[norm]), reference=reference)
    assert torch.equal(images, pictures(2)) and all(r.all() for r in reference)
    assert sam.fingerprint() == weights and all(p.grad is None for p in sam.model.parameters())


EPS = {"linf": st.floats(0, 0.3), "l2": st.floats(0, 6), "l0": st.integers(0, 60), "shift": st.floats(0, 9)}


@each
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_comes_in_the_delivered_image_is_inside_its_threat(
    entry: registry.Entry, toy_class: Any, data: st.DataObject
) -> None:
    norm = data.draw(st.sampled_from(entry.meta["norms"]))
    threat = Threat(
        norm=norm,
        eps=data.draw(EPS[norm]),
        region=data.draw(st.sampled_from(["all", "object", "background"])),
        lattice=data.draw(st.booleans()),
    )
    seed = data.draw(st.integers(0, 1000))
    height, width = data.draw(st.integers(2, 14)), data.draw(st.integers(2, 14))
    images = pictures(2, height, width, seed=seed)
    if data.draw(st.booleans()):  # saturated pictures: nothing but 0 and 255
        images = (images > 0.5).float()
    objective = data.draw(st.sampled_from(registry.names("objective")))
    if entry.meta.get("features") == "blocks":  # needs an encoder with blocks, which the toy has not
        model = tiny("sam", image_size=32)
    else:
        model = toy_class(side=8, weight=data.draw(st.sampled_from([(1.0, 0.0, 0.0), (0.3, -0.6, 0.1)])))
    where = [[point(width - 1, height - 1)], [box(0, 0, width, height)]]
    result = short(entry, objective=objective).run(model, images, where, threat=threat, seeds=[seed, seed + 1])
    masks = [m.masks for m in model.predict(images, where)]
    region = threat.region_mask(masks)
    before = to_uint8(images)
    for i in range(2):
        assert threat.measure(result.images[i], before[i]) == result.budget[i]._replace(shift=0.0)
        threat.check(result.images[i], before[i], None if region is None else region[i])
