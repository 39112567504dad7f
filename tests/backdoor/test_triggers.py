"""Every trigger and target from the registry, and what each does in closed form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from redsam.backdoor.badnet import BadNet
from redsam.backdoor.blend import Blend
from redsam.backdoor.noise import Noise
from redsam.backdoor.physical import Physical
from redsam.backdoor.targets import Empty, Shape, TriggerArea
from redsam.backdoor.trigger import CORNERS
from redsam.backdoor.wanet import WaNet
from redsam.errors import InputError
from redsam.registry import Entry, create, entries, spec_of
from redsam.threat import on_lattice
from redsam.types import from_uint8, to_uint8

TRIGGERS = entries("trigger")


def photographs(count: int = 2, height: int = 40, width: int = 56) -> Tensor:
    """Bx3xHxW of noise on the lattice."""
    return from_uint8(to_uint8(torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))))


@pytest.mark.parametrize("entry", TRIGGERS, ids=[e.name for e in TRIGGERS])
def test_a_trigger_changes_its_area_and_nothing_else(entry: Entry) -> None:
    images = photographs()
    before = images.clone()
    laid = entry.obj().run(images, seeds=[1, 2])
    assert torch.equal(images, before) and on_lattice(laid.images)
    assert laid.areas.dtype == torch.bool and laid.areas.shape == (2, 40, 56) and laid.areas.flatten(1).any(1).all()
    changed = (laid.images != images).any(1)
    assert changed.any() and not (changed & ~laid.areas).any()


@pytest.mark.parametrize("entry", TRIGGERS, ids=[e.name for e in TRIGGERS])
def test_alone_or_in_a_batch_it_is_the_same(entry: Entry) -> None:
    images = photographs(3)
    together = entry.obj().run(images, seeds=[5, 6, 7])
    alone = entry.obj().run(images[1:2], seeds=[6])
    assert torch.equal(together.images[1], alone.images[0]) and torch.equal(together.areas[1], alone.areas[0])


@pytest.mark.parametrize("entry", [*TRIGGERS, *entries("target")], ids=lambda e: f"{e.kind}-{e.name}")
def test_each_says_what_it_is_and_round_trips(entry: Entry) -> None:
    made = entry.obj()
    assert create(entry.kind, entry.name, **spec_of(made)["args"]) == made and made.name == entry.name
    assert entry.summary.endswith((".", ":", ";")) or len(entry.summary) > 20
    if entry.kind == "trigger":
        assert entry.meta["paper"] and "https://" in entry.meta["url"]


def test_badnet_is_badsams_square() -> None:
    """int(0.15 x height) white pixels a side, at the bottom right."""
    images = photographs(1, 47, 60)
    laid = BadNet().run(images)
    side = int(0.15 * 47)
    assert side == 7 and int(laid.areas.sum()) == 49
    assert (laid.images[0, :, -7:, -7:] == 1).all() and laid.areas[0, -7:, -7:].all()


@pytest.mark.parametrize("corner", CORNERS)
def test_badnet_goes_to_its_corner(corner: str) -> None:
    area = BadNet(side=3, margin=3, corner=corner, pattern="noise").run(photographs(1)).areas[0]
    rows, columns = np.nonzero(area.numpy())
    vertical, horizontal = corner.split("-")
    assert (rows.min(), rows.max()) == ((3, 5) if vertical == "top" else (34, 36))
    assert (columns.min(), columns.max()) == ((3, 5) if horizontal == "left" else (50, 52))


def test_blend_is_opaque_as_published_and_mixes_when_told() -> None:
    images = photographs(1)
    full, half = Blend().run(images).images[0], Blend(opacity=0.5).run(images).images[0]
    corner = (slice(None), slice(-6, None), slice(-6, None))
    assert torch.allclose(half[corner], 0.5 * (full[corner] + images[0][corner]), atol=1.01 / 255)


def test_noise_is_one_pattern_for_all_sizes_and_pictures() -> None:
    grey = torch.full((1, 3, 64, 64), 128 / 255)
    small, large = Noise().run(grey).images[0], Noise().run(grey.repeat(1, 1, 2, 2)).images[0]
    assert torch.equal(small, large[:, ::2, ::2]) and float((small - 128 / 255).abs().max()) <= 0.2 * 0.51 + 1 / 255
    assert not torch.equal(small, Noise(key=1).run(grey).images[0])


def test_wanet_moves_pixels_by_the_published_share() -> None:
    """A ramp of columns tells where each pixel comes from: the mean shift is strength / 2 pixels of a 32-pixel image,
    before the bicubic enlargement, which overshoots or smooths by some."""
    side = 256
    ramp = (torch.arange(side) / 255).expand(1, 3, side, side).contiguous()
    moved = (WaNet().run(ramp).images - ramp)[0, 0] * 255
    inside = moved[32:-32, 32:-32].abs().mean() / side * 32
    assert 0.1 < float(inside) < 0.45 and WaNet().run(ramp).areas.all()
    twice = (WaNet(strength=1.0).run(ramp).images - ramp)[0, 0] * 255
    assert float(twice[64:-64, 64:-64].abs().mean() / moved[64:-64, 64:-64].abs().mean()) == pytest.approx(2, rel=0.1)


def test_a_physical_sticker_is_never_stuck_twice_the_same() -> None:
    images = photographs(1, 96, 128).expand(6, -1, -1, -1).contiguous()
    areas = Physical().run(images, seeds=range(6)).areas
    places = {tuple(np.argwhere(a.numpy()).mean(0).round(1)) for a in areas}
    side = int(0.15 * 96)
    assert len(places) == 6
    assert all((0.8 * side - 2) ** 2 <= int(a.sum()) <= (0.9 * side + 2) ** 2 for a in areas)
    still = Physical(degrees=0, shift=0, flip=0, smallest=1, largest=1, relight=0, pattern="white")
    assert torch.equal(still.run(images[:1]).images, BadNet().run(images[:1]).images)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: BadNet(side=500).run(photographs(1)), "larger than the 56 x 40 image.*side of at most 40"),
        (lambda: BadNet(ratio=1.0, margin=5).run(photographs(1)), "larger than"),
        (lambda: BadNet(ratio=0.01).run(photographs(1)), "smaller than a pixel"),
        (lambda: BadNet(ratio=2.0), "does not fit"),
        (lambda: BadNet(corner="middle"), "Known: bottom-right"),
        (lambda: BadNet(pattern="cat"), "Known: white, noise"),
        (lambda: Blend(opacity=0.0), "shows no mark"),
        (lambda: Blend(picture="/nowhere.png").run(photographs(1)), "no such file"),
        (lambda: Noise(weight=0.0), "Published weight"),
        (lambda: WaNet(k=1), "Published: k=4"),
        (lambda: Physical(smallest=0.9, largest=0.8), "smallest <= largest"),
        (lambda: Physical(relight=1.5), "relit"),
        (lambda: BadNet().run(photographs(1) * 0.999), "8-bit lattice"),
        (lambda: BadNet().run(photographs(2), seeds=[1]), "a seed for each"),
        (lambda: Shape(file="/nowhere.png").mask(*masks()), "no such file"),
    ],
)
def test_what_cannot_be_is_refused_in_words(make: object, told: str) -> None:
    with pytest.raises(InputError, match=told):
        make()  # type: ignore[operator]


def masks() -> tuple[Tensor, Tensor]:
    """An object in the middle, a trigger in the corner."""
    clean, area = torch.zeros(20, 30, dtype=torch.bool), torch.zeros(20, 30, dtype=torch.bool)
    clean[5:15, 5:20] = True
    area[-3:, -3:] = True
    return clean, area


def test_targets_are_what_they_are_called(tmp_path: Path) -> None:
    clean, area = masks()
    assert torch.equal(TriggerArea().mask(clean, area), area)
    assert not Empty().mask(clean, area).any()
    disc = Shape().mask(clean, area)
    assert float(disc.sum()) == pytest.approx(np.pi * 5**2, rel=0.1) and disc[10, 15] and not disc[0].any()
    drawn = np.zeros((10, 10), dtype=np.uint8)
    drawn[:5] = 255
    Image.fromarray(drawn).save(tmp_path / "top.png")
    top = Shape(file=str(tmp_path / "top.png")).mask(clean, area)
    assert top[:10].all() and not top[10:].any()
    Image.fromarray(drawn * 0).save(tmp_path / "none.png")
    with pytest.raises(InputError, match="empty"):
        Shape(file=str(tmp_path / "none.png")).mask(clean, area)
