"""What every registered purifier owes, whoever wrote it."""

from __future__ import annotations

import inspect
import json
from dataclasses import fields, is_dataclass, replace

import pytest
import torch
from torch import Tensor

from redsam import registry
from redsam.defenses import Purifier, apart, chain, parse
from redsam.errors import InputError, RedsamError, UnknownName
from redsam.metrics.images import psnr
from redsam.threat import on_lattice
from redsam.types import to_uint8
from tests.defenses.conftest import pictures

# Fields that cost time get small values here.
QUICK = {"steps": 4, "search": 5, "start": 200, "large": "residual", "side": 48}
EVERYTHING = registry.entries("defense")
DECLARED = [e for e in EVERYTHING if isinstance(e.obj, type) and issubclass(e.obj, Purifier)]
# Those that wait for something only a user can bring (meta `needs`) are tested where they live.
READY = [e for e in DECLARED if not e.meta.get("needs")]
declared = pytest.mark.parametrize("entry", DECLARED, ids=lambda e: e.name)
each = pytest.mark.parametrize("entry", READY, ids=lambda e: e.name)


def made(entry: registry.Entry) -> Purifier:
    found = registry.create("defense", entry.name)
    assert isinstance(found, Purifier)
    known = {f.name for f in fields(found)}
    return replace(found, **{k: v for k, v in QUICK.items() if k in known})


def test_the_classic_ones_are_there() -> None:
    classic = ("jpeg", "gaussian", "median", "bit-depth", "tv", "resize-pad", "nlm", "bilateral")
    assert {e.name for e in DECLARED} >= set(classic)


@pytest.mark.parametrize("entry", EVERYTHING, ids=lambda e: e.name)
def test_it_says_where_it_comes_from(entry: registry.Entry) -> None:
    assert {"paper", "year", "url", "group"} <= set(entry.meta)
    assert entry.meta["group"] in {"purifier", "tuning", "smoothing"}
    assert entry.summary and "eviation" in (inspect.getdoc(entry.obj) or "")


@declared
def test_it_declares_what_it_is(entry: registry.Entry) -> None:
    assert is_dataclass(entry.obj) and entry.meta["group"] == "purifier"
    assert isinstance(entry.meta["random"], bool) and isinstance(entry.meta["differentiable"], bool)
    assert not {"run", "through", "name", "label"} & set(vars(entry.obj))  # the base keeps the promises


@each
def test_it_survives_a_log_and_a_command_line(entry: registry.Entry) -> None:
    one = made(entry)
    assert one.name == entry.name
    spec = json.loads(json.dumps(registry.spec_of(one)))
    assert registry.create("defense", spec["name"], **spec["args"]) == one
    assert parse(one.label) == one
    assert registry.create("defense", entry.name).label == entry.name


@declared
def test_a_mistyped_name_or_option_suggests_it(entry: registry.Entry) -> None:
    with pytest.raises(UnknownName, match=f"'{entry.name}'"):
        parse(f"{entry.name}x")
    with pytest.raises(UnknownName, match="option of defense"):
        parse(f"{entry.name}:wrong=1")


@declared
def test_bad_options_are_refused_in_one_line(entry: registry.Entry) -> None:
    for field in fields(entry.obj):
        if isinstance(field.default, bool) or not isinstance(field.default, int | float):
            continue
        for bad in (-1, 1e9, True, "much", None, float("nan")):
            with pytest.raises(RedsamError) as caught:
                registry.create("defense", entry.name, **{field.name: bad})
            assert "\n" not in str(caught.value)


@each
def test_what_comes_out(entry: registry.Entry) -> None:
    images = pictures(2)
    out = made(entry).run(images, seeds=[3, 4])
    assert out.shape == images.shape and out.dtype == torch.float32 and not out.requires_grad
    assert on_lattice(out) and float(out.min()) >= 0 and float(out.max()) <= 1
    assert torch.equal(images, pictures(2)), "the input was changed in place"


@each
def test_the_same_seed_gives_the_same_bytes_alone_and_in_a_batch(entry: registry.Entry, photographs: Tensor) -> None:
    purifier = made(entry)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    together = purifier.run(photographs, seeds=[5, 6, 7])
    assert torch.equal(state, torch.get_rng_state()), "the global generator was used"
    torch.manual_seed(2)
    for i in range(3):
        alone = purifier.run(photographs[i : i + 1], seeds=[5 + i])
        assert torch.equal(to_uint8(alone[0]), to_uint8(together[i]))


@each
def test_seeds_matter_where_it_says_so(entry: registry.Entry, photographs: Tensor) -> None:
    purifier = made(entry)
    one, other = (purifier.run(photographs[:1], seeds=[s]) for s in (1, 2))
    assert torch.equal(one, other) != purifier.random


@each
def test_through_has_the_values_of_run(entry: registry.Entry, photographs: Tensor) -> None:
    """On the lattice an attacker sees what is deployed, bit for bit: with gradients, without, in a batch."""
    purifier, images = made(entry), photographs[:2].clone().requires_grad_()
    wanted = purifier.run(photographs[:2], seeds=[1, 2])
    seen = purifier.through(images, seeds=[1, 2])
    assert torch.equal(seen.detach(), wanted)
    (gradient,) = torch.autograd.grad((seen * torch.linspace(-1, 1, seen.numel()).view_as(seen)).sum(), images)
    assert bool(gradient.isfinite().all()) and bool((gradient != 0).flatten(1).any(1).all())
    with torch.no_grad():
        assert torch.equal(purifier.through(photographs[:2], seeds=[1, 2]), wanted)


@each
def test_the_gradient_is_that_of_finite_differences_or_the_identity(entry: registry.Entry) -> None:
    purifier = made(entry)
    generator = torch.Generator().manual_seed(4)
    images = (torch.rand(1, 3, 9, 11, generator=generator, dtype=torch.float64) * 0.6 + 0.2).requires_grad_()
    weights = torch.randn(images.shape, generator=generator, dtype=torch.float64)
    if not purifier.differentiable:
        (gradient,) = torch.autograd.grad((purifier.through(images) * weights).sum(), images)
        assert torch.equal(gradient, weights)  # BPDA: nothing was clamped
        return

    def score(x: Tensor) -> Tensor:
        return (purifier.purify(x, [torch.Generator().manual_seed(6)]) * weights).sum()

    (gradient,) = torch.autograd.grad(score(images), images)
    for _ in range(3):
        direction = torch.randn(images.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            slope = (score(images + 1e-6 * direction) - score(images - 1e-6 * direction)) / 2e-6
        torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-5, atol=1e-7)


@each
@pytest.mark.parametrize("size", [(2, 2), (3, 17), (31, 8)])
def test_any_size_will_do(entry: registry.Entry, size: tuple[int, int]) -> None:
    assert made(entry).run(pictures(1, *size), seeds=[1]).shape == (1, 3, *size)


@each
@pytest.mark.parametrize("level", [0.0, 102 / 255, 1.0])
def test_one_even_colour_stays_about_itself(entry: registry.Entry, level: float) -> None:
    flat = torch.full((1, 3, 24, 24), level)
    out = made(entry).run(flat)
    assert float((out.mean() - flat.mean()).abs()) < 0.05


@each
def test_grey_photographs_stay_about_grey(entry: registry.Entry, photographs: Tensor) -> None:
    grey = to_uint8(photographs[:1].mean(1, keepdim=True)).float().expand(1, 3, -1, -1) / 255
    out = made(entry).run(grey)
    assert float((out.amax(1) - out.amin(1)).mean()) < (0.2 if entry.meta["random"] else 0.02)


@each
def test_the_photograph_is_still_to_be_seen(entry: registry.Entry, photographs: Tensor) -> None:
    out = made(entry).run(photographs)
    assert float(psnr(out, photographs).mean()) > 17
    assert float((out - photographs).abs().mean()) > 1e-3, "nothing was purified"


@each
def test_images_and_seeds_that_cannot_be(entry: registry.Entry) -> None:
    purifier, good = made(entry), pictures(2)
    wrong = [
        good[0],
        good[:, :1],
        good * 0.999,
        good * 255,
        good.double(),
        torch.full_like(good, float("nan")),
        good[:0],
    ]
    for images in wrong:
        with pytest.raises(InputError):
            purifier.run(images)
    for seeds in ([1], [1, 2, 3], [0.5, 1]):
        with pytest.raises(InputError):
            purifier.run(good, seeds=seeds)
        with pytest.raises(InputError):
            purifier.through(good, seeds=seeds)


@pytest.mark.parametrize("text", ["jpeg:quality", "jpeg:=5", "jpeg:quality=0", "jpeg:quality=fine", "jpeg:quality=[1]"])
def test_texts_that_are_no_defence(text: str) -> None:
    with pytest.raises(InputError):
        parse(text)


def test_chains() -> None:
    two = chain("jpeg:quality=50 | median:size=5")
    assert [p.label for p in two] == ["jpeg:quality=50", "median:size=5"]
    assert chain(["jpeg:quality=50|median:size=5"]) == two == chain([two[0], "median:size=5"])
    assert chain([]) == () == chain("")
    assert apart("jpeg:quality=50,median, tv:weight=0.1,drop=0|noise,") == [
        "jpeg:quality=50", "median", "tv:weight=0.1,drop=0|noise"
    ]  # fmt: skip
    assert parse("tv:weight=0.1,drop=0").label == "tv:weight=0.1,drop=0"
