"""What every registered corruption owes, whoever wrote it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass

import pytest
import torch
from torch import Tensor

from redsam import registry
from redsam.corruptions import Corruption
from redsam.errors import InputError, UnknownName
from redsam.metrics.images import psnr
from redsam.prompts import point
from redsam.threat import on_lattice
from redsam.types import to_uint8
from tests.corruptions.conftest import checkerboard, pictures

GROUPS = {"noise", "blur", "weather", "digital", "lens", "style", "composition"}
DECLARED = registry.entries("corruption")
# Those that wait for something only a user can bring (meta `needs`) are tested where they live.
READY = [e for e in DECLARED if not e.meta.get("needs")]
declared = pytest.mark.parametrize("entry", DECLARED, ids=lambda e: e.name)
each = pytest.mark.parametrize("entry", READY, ids=lambda e: e.name)
geometric = pytest.mark.parametrize("entry", [e for e in READY if e.meta["geometric"]], ids=lambda e: e.name)


def made(entry: registry.Entry, severity: int = 3) -> Corruption:
    found = registry.create("corruption", entry.name, severity=severity)
    assert isinstance(found, Corruption)
    return found


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def test_the_classic_ones_are_there() -> None:
    classic = (
        "gaussian-noise shot-noise impulse-noise defocus-blur glass-blur motion-blur zoom-blur brightness contrast"
    )
    assert {e.name for e in DECLARED} >= {*classic.split(), *["fog", "frost", "snow", "elastic", "pixelate", "jpeg"]}


@declared
def test_it_declares_what_it_is(entry: registry.Entry) -> None:
    assert is_dataclass(entry.obj) and issubclass(entry.obj, Corruption)
    assert {"paper", "year", "url", "group", "geometric"} <= set(entry.meta)
    assert entry.meta["group"] in GROUPS and isinstance(entry.meta["geometric"], bool)
    assert entry.summary and "eviation" in (inspect.getdoc(entry.obj) or "")
    assert "run" not in vars(entry.obj)  # final: the base keeps the promises
    assert made(entry).name == entry.name


@declared
def test_it_survives_a_log(entry: registry.Entry) -> None:
    spec = json.loads(json.dumps(registry.spec_of(made(entry, 4))))
    assert registry.create("corruption", spec["name"], **spec["args"]) == made(entry, 4)


@declared
def test_other_severities_are_refused_in_one_line(entry: registry.Entry) -> None:
    for severity in (0, 6, 9, -1, 2.5, True, "3"):
        with pytest.raises(InputError) as caught:
            registry.create("corruption", entry.name, severity=severity)
        assert "\n" not in str(caught.value) and "1, 2, 3, 4, 5" in caught.value.message and caught.value.hint


@declared
def test_a_mistyped_name_suggests_it(entry: registry.Entry) -> None:
    with pytest.raises(UnknownName, match=f"'{entry.name}'".replace("+", r"\+")):
        registry.get("corruption", f"{entry.name}x")


@each
def test_what_comes_out(entry: registry.Entry) -> None:
    images = pictures(2)
    for severity in (1, 5):
        result = made(entry, severity).run(images, seeds=[3, 4])
        assert result.images.shape == images.shape and result.images.dtype == torch.float32
        assert on_lattice(result.images) and float(result.images.min()) >= 0 and float(result.images.max()) <= 1
        assert (result.grid is not None) == entry.meta["geometric"]
        assert torch.equal(images, pictures(2)), "the input was changed in place"


@each
def test_the_same_seed_gives_the_same_bytes_alone_and_in_a_batch(entry: registry.Entry, photographs: Tensor) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    together = made(entry).run(photographs, seeds=[5, 6, 7])
    assert torch.equal(state, torch.get_rng_state()), "the global generator was used"
    torch.manual_seed(2)
    for i in range(3):
        alone = made(entry).run(photographs[i : i + 1], seeds=[5 + i])
        assert torch.equal(to_uint8(alone.images[0]), to_uint8(together.images[i]))


@each
def test_the_same_bytes_on_one_and_on_four_threads(entry: registry.Entry, photographs: Tensor) -> None:
    with threads(1):
        one = made(entry, 4).run(photographs[:2], seeds=[8, 9]).images
    with threads(4):
        four = made(entry, 4).run(photographs[:2], seeds=[8, 9]).images
    assert torch.equal(one, four)


@each
@pytest.mark.parametrize("size", [(2, 2), (3, 17), (31, 8)])
def test_any_size_will_do(entry: registry.Entry, size: tuple[int, int]) -> None:
    images = pictures(1, *size)
    for severity in (1, 5):
        assert made(entry, severity).run(images, seeds=[1]).images.shape == images.shape


@each
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_black_and_white_survive(entry: registry.Entry, level: float) -> None:
    result = made(entry, 5).run(torch.full((1, 3, 24, 24), level))
    assert bool(result.images.isfinite().all())


@each
def test_psnr_falls_with_severity(entry: registry.Entry, published_size: Tensor) -> None:
    """Mean over photographs, each severity below the last. Exceptions say so themselves: meta `monotone`."""
    images = published_size
    means = [float(psnr(made(entry, s).run(images, seeds=[0, 1, 2]).images, images).mean()) for s in range(1, 6)]
    falls = all(a > b for a, b in zip(means, means[1:], strict=False))
    assert falls == entry.meta.get("monotone", True), [round(m, 2) for m in means]
    assert max(means) < 60, "severity 1 changes next to nothing"


@geometric
@pytest.mark.parametrize("severity", [1, 2, 3, 5])
def test_a_checkerboard_and_its_mask_move_alike(entry: registry.Entry, severity: int) -> None:
    board = checkerboard(192, 256, 16)
    images = board.float().expand(1, 3, -1, -1).contiguous()
    result = made(entry, severity).run(images, seeds=[2])
    moved = result.masks(0, board[None])[0]
    assert float((moved != board).float().mean()) > 0.02, "nothing moved"
    sure = (result.images[0] < 0.25).all(0) | (result.images[0] > 0.75).all(0)  # off the blended edges
    assert float(sure.float().mean()) > 0.75
    assert torch.equal(moved[sure], result.images[0, 0][sure] > 0.5)


@geometric
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_a_point_lands_on_the_pixel_it_meant(entry: registry.Entry, severity: int) -> None:
    """A white blob on black: its point must be on white afterwards, or be gone when nothing white is left."""
    for seed, (x, y) in enumerate([(40, 30), (128, 96), (200, 150), (90, 160)]):
        rows, columns = torch.arange(192)[:, None], torch.arange(256)
        blob = ((rows - y) ** 2 + (columns - x) ** 2 <= 9).float()
        result = made(entry, severity).run(blob.expand(1, 3, -1, -1).contiguous(), seeds=[seed])
        (moved,) = result.prompts(0, [point(x, y)])
        if moved is None:
            assert float(result.images.max()) < 1
        else:
            (at,) = moved.points
            assert float(result.images[0, 0, round(at[1]), round(at[0])]) > 0.8, (x, y, at)


@each
def test_what_does_not_move_keeps_masks_and_prompts(entry: registry.Entry) -> None:
    if entry.meta["geometric"]:
        return
    result = made(entry).run(pictures(1))
    masks, prompt = checkerboard(40, 56, 8)[None], point(3.5, 4)
    assert torch.equal(result.masks(0, masks), masks) and result.prompts(0, [prompt]) == (prompt,)
