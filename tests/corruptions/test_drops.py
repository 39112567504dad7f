"""Drops on the glass: one ray by hand, the picture inside a drop, the water's shape, and what light gets through."""

from __future__ import annotations

import math

import pytest
import torch

from redsam.corruptions.dropfield import (
    WATER,
    Drop,
    cap,
    look_through,
    rain_on_glass,
    refract,
    surface,
    transmitted,
)
from redsam.corruptions.raindrops import COVER, gather, lay_over, through
from redsam.seeds import generator

ROUND = Drop(x=64.0, y=64.0, radius=24.0, aspect=1.0, contact=math.radians(45), waves=())


def test_one_ray_bends_by_snells_law() -> None:
    """In water, along the axis, onto a face tilted by 30 degrees: the angle outside is asin(1.333 sin 30) = 41.80."""
    tilt = math.radians(30)
    along, normal = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([math.sin(tilt), 0.0, math.cos(tilt)])
    out, cos_in, cos_out = refract(along, normal, WATER)
    outside = math.asin(WATER * math.sin(tilt))
    assert math.degrees(outside) == pytest.approx(41.80, abs=0.01)
    assert float(cos_in) == pytest.approx(math.cos(tilt), abs=1e-6)
    assert float(cos_out) == pytest.approx(math.cos(outside), abs=1e-6)
    # Away from the normal, which leans right: the ray turns left by the difference of the angles.
    wanted = [-math.sin(outside - tilt), 0.0, math.cos(outside - tilt)]
    torch.testing.assert_close(out, torch.tensor(wanted), atol=1e-6, rtol=0)


def test_a_flat_film_of_water_changes_nothing() -> None:
    at, _ = look_through(torch.zeros(2, 40, 60), focal=60.0)
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(60.0), indexing="ij")
    torch.testing.assert_close(at, torch.stack([x, y], dim=-1), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("degrees", "passes"), [(0.0, 0.98), (48.0, None), (49.0, 0.0)])
def test_light_passes_up_to_the_critical_angle(degrees: float, passes: float | None) -> None:
    """Straight on, water reflects ((n - 1) / (n + 1))^2 = 2%; beyond asin(1 / 1.333) = 48.6 degrees everything."""
    tilt = math.radians(degrees)
    along, normal = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([math.sin(tilt), 0.0, math.cos(tilt)])
    _, cos_in, cos_out = refract(along, normal, WATER)
    found = float(transmitted(cos_in, cos_out, WATER))
    if passes is None:
        assert 0.2 < found < 0.9
    else:
        assert found == pytest.approx(passes, abs=1e-3)


def test_a_drop_is_a_spherical_cap_of_its_contact_angle() -> None:
    at = [torch.tensor([v]) for v in (64.0, 64.0 + 24.0, 64.0 + 30.0)]
    middle = torch.tensor([64.0])
    top, edge, outside = (float(cap(ROUND, x, middle)) for x in at)
    assert top == pytest.approx(24.0 * math.tan(ROUND.contact / 2), rel=1e-4)
    assert edge == pytest.approx(0.0, abs=1e-3)
    assert outside < 0
    water = surface([ROUND], (128, 128))
    # Just inside the contour on the right, the water falls off at nearly the contact angle.
    slope = float(water.slope[0, 64, 87])
    assert math.atan(-slope) == pytest.approx(ROUND.contact, abs=0.06)
    assert float(water.wet.float().sum()) == pytest.approx(math.pi * 24**2, rel=0.02)


@pytest.mark.parametrize("axis", [0, 1])
def test_the_scene_in_a_drop_is_mirrored_and_small(axis: int) -> None:
    """Dark on one half, bright on the other: inside the drop it is the other way round, on both axes."""
    image = torch.zeros(3, 128, 128)
    image.narrow(axis + 1, 64, 64).fill_(1.0)
    slope = surface([ROUND._replace(radius=8.0)], (128, 128)).slope
    seen = through(image, slope, focal=128.0)[0]
    low, high = (seen[59, 64], seen[68, 64]) if axis == 0 else (seen[64, 59], seen[64, 68])
    assert low > 0.8  # where the image is dark
    assert high < 0.2  # where it is bright
    at, _ = look_through(slope, focal=128.0)
    inside = at[58:70, 64, 1] if axis == 0 else at[64, 58:70, 0]
    assert bool((inside.diff() < 0).all())
    assert float(inside[0] - inside[-1]) > 11 * 3  # twelve pixels show more than thirty, backwards


def test_the_rim_is_dark() -> None:
    steep = ROUND._replace(contact=math.radians(58))
    water = surface([steep], (128, 128))
    _, passed = look_through(water.slope, focal=2000.0)
    assert float(passed[64, 64]) > 0.97
    assert float(passed[64, 86]) < 0.05


def test_drops_are_drawn_in_order_and_do_not_touch() -> None:
    found = [rain_on_glass(generator("drops"), (200, 300), cover) for cover in COVER]
    for fewer, more in zip(found, found[1:], strict=False):
        assert len(fewer) < len(more)
        assert more[: len(fewer)] == fewer
    last = found[-1]
    gaps = [math.hypot(a.x - b.x, a.y - b.y) - a.radius - b.radius for i, a in enumerate(last) for b in last[:i]]
    assert min(gaps) > 0


def test_gathering_in_place_is_the_image_and_far_apart_is_its_mean() -> None:
    image = torch.rand(3, 64, 64, generator=generator("gather"))
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    torch.testing.assert_close(gather(image, torch.stack([x, y], dim=-1)), image, atol=1e-4, rtol=0)
    wide = gather(image, torch.stack([x, y], dim=-1) * 32)
    assert float(wide.std()) < 0.1 * float(image.std())


def test_the_edge_of_a_drop_is_soft_and_far_from_it_nothing_happens() -> None:
    light, over = torch.zeros(3, 64, 64), torch.ones(3, 64, 64)
    cover = torch.zeros(1, 64, 64)
    cover[:, :, 32:] = 1
    out = lay_over(light, over, cover, 2.0)[0, 32]
    assert float(out[20]) == 0
    assert float(out[44]) == pytest.approx(1, abs=1e-5)
    assert float(out[31]) == pytest.approx(0.4, abs=0.05)
    assert bool((out.diff() >= -1e-6).all())
