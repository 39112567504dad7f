"""Weather by hand: Koschmieder's law, conserved light, noise of the right variance, mirrors, streaks, compositions."""

from __future__ import annotations

import math

import pytest
import torch

from redsam.corruptions import depth as depths
from redsam.corruptions.composition import part_seeds
from redsam.corruptions.haze import CONTRAST_LEFT, VISIBILITY, Haze, airlight, koschmieder
from redsam.corruptions.lens_dirt import specks
from redsam.corruptions.light import blur, field, quantile, to_linear, to_srgb, widest
from redsam.corruptions.night import bloom, lamps, poisson_gaussian
from redsam.corruptions.rain import Rain, streaks
from redsam.corruptions.sun_glare import veil
from redsam.corruptions.wet_road import WATER, mirrored, reflectance
from redsam.data.demo import demo_root
from redsam.data.images import read_image
from redsam.errors import InputError
from redsam.metrics import psnr
from redsam.registry import create, entries, get
from redsam.seeds import generator
from redsam.types import from_uint8, to_uint8

OURS = ("rain", "haze", "overcast", "wet-road", "night", "sun-glare", "lens-dirt", "raindrops")
COMPOSED = ("overcast+drops", "night+drops", "snow+drops", "wet", "wet+drops")


@pytest.fixture(scope="module")
def scene() -> torch.Tensor:
    """1x3x96x144 of a photograph."""
    photo = read_image(demo_root() / "china.jpg")[None]
    small = torch.nn.functional.interpolate(photo, size=(96, 144), mode="bilinear", antialias=True)
    return from_uint8(to_uint8(small))


def test_linear_light_and_back() -> None:
    levels = torch.arange(256) / 255
    torch.testing.assert_close(to_srgb(to_linear(levels)), levels, atol=1e-6, rtol=0)
    assert float(to_linear(torch.tensor(0.5))) == pytest.approx(0.21404, abs=1e-5)  # IEC 61966-2-1


@pytest.mark.parametrize("sigma", [0.7, 3.0, 9.0])
def test_a_blurred_point_has_the_variance_asked_for(sigma: float) -> None:
    image = torch.zeros(1, 121, 121)
    image[0, 60, 60] = 1
    found = blur(image, sigma)[0].double()
    x = torch.arange(121, dtype=torch.float64) - (found.sum(0) @ torch.arange(121, dtype=torch.float64))
    assert float(found.sum()) == pytest.approx(1, abs=1e-5)
    assert float(found.sum(0) @ x**2) == pytest.approx(sigma**2, rel=0.1)


def test_field_is_the_same_at_every_size() -> None:
    small = field(generator("field"), torch.zeros(3, 50, 100), 3)
    large = field(generator("field"), torch.zeros(3, 99, 199), 3)  # every second point of it
    torch.testing.assert_close(large[::2, ::2], small, atol=1e-4, rtol=0)
    many = torch.stack([field(generator("field", i), torch.zeros(3, 64, 64), 4) for i in range(60)])
    assert float(many.std()) == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("radius", [0, 1, 3, 10])
def test_widest_is_the_largest_nearby(radius: int) -> None:
    values = torch.rand(1, 21, 34, generator=generator("widest"))
    wanted = torch.nn.functional.max_pool2d(values, 2 * radius + 1, stride=1, padding=radius)[0]
    assert torch.equal(widest(values[0], radius), wanted)


def test_quantile_is_an_order_statistic() -> None:
    values = torch.randperm(101).float().reshape(1, 101)
    assert [float(quantile(values, q)) for q in (0, 0.25, 1)] == [0, 25, 100]


def test_koschmieder_in_closed_form() -> None:
    """At the optical range a black thing has 95% of the airlight: 5% of its contrast is left; near, nothing happens."""
    black, air = torch.zeros(3, 2, 2), torch.tensor([0.6, 0.65, 0.7])[:, None, None]
    beta = CONTRAST_LEFT / 200
    out = koschmieder(black, torch.tensor([[0.0, 200.0], [100.0, 1e9]]), beta, air)
    wanted = torch.tensor([[0, 1 - math.exp(-2.996)], [1 - math.exp(-1.498), 1]]) * air
    torch.testing.assert_close(out, wanted.float(), atol=1e-6, rtol=1e-5)
    assert 1 - math.exp(-2.996) == pytest.approx(0.95, abs=1e-4)


def test_haze_is_koschmieder_over_the_depth(scene: torch.Tensor) -> None:
    light = to_linear(scene[0])
    t = torch.exp(-CONTRAST_LEFT / VISIBILITY[2] * depths.depth(scene[0], prior="vertical", horizon=0.4))
    wanted = to_srgb(light * t + airlight(light) * (1 - t))
    found = Haze(severity=3, depth="vertical", horizon=0.4).run(scene).images[0]
    assert float((found - wanted).abs().max()) <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("prior", ["both", "vertical", "dark-channel"])
def test_depth_grows_towards_the_horizon_and_the_sky_is_far(prior: depths.Prior) -> None:
    image = torch.full((3, 100, 120), 0.15)
    image[:, :40] = 0.95
    far = depths.depth(image, prior=prior, horizon=0.5)
    assert far.shape == (100, 120)
    assert float(far[5, 60]) > 8 * float(far[95, 60])
    if prior != "dark-channel":
        assert bool((far[50:, 60].diff() < 0).all())


def test_level_ground_at_its_distance() -> None:
    """Far below the horizon Z = f h / rows: 101 pixels, 1.4 m up, 50 rows down: 2.8 m, before what stands at 60 m."""
    far = depths.ground(torch.zeros(3, 101, 100), 0.5)
    assert float(far[100, 0]) == pytest.approx(1 / (1 / 2.8 + 1 / 60), rel=0.02)


def test_dark_channel_by_hand() -> None:
    light = torch.rand(3, 9, 11, generator=generator("dark"))
    found = depths.dark_channel(light, 3)
    assert float(found[4, 5]) == float(light[:, 3:6, 4:7].min())
    assert float(found[0, 0]) == float(light[:, :2, :2].min())


def test_bloom_conserves_light() -> None:
    light = torch.zeros(3, 200, 200)
    light[:, 95:105, 95:105] = torch.tensor([1.0, 0.5, 0.2])[:, None, None]
    out = bloom(light, 100)
    torch.testing.assert_close(out.double().sum((1, 2)), light.double().sum((1, 2)), rtol=1e-3, atol=0)
    assert float(out[0, 100, 100]) < 1
    assert float(out[0, 100, 110]) > 0


def test_lamps_are_small_and_bright() -> None:
    light = torch.full((3, 100, 100), 0.05)
    light[:, 20:24, 20:24] = 1.0
    light[:, 60:, :] = 0.9  # a bright wall is none
    found = lamps(light)
    assert float(found[21, 21]) > 0.9
    assert float(found[85, 50]) == 0
    assert float(found[40, 70]) == 0


def test_noise_has_the_variance_of_the_model() -> None:
    noise = torch.randn(3, 200, 200, generator=generator("noise"))
    for level in (0.0, 0.3):
        found = poisson_gaussian(torch.full((3, 200, 200), level), noise, 1 / 500, 0.01**2)
        assert float(found.double().var()) == pytest.approx(level / 500 + 0.01**2, rel=0.02)
        assert float(found.double().mean()) == pytest.approx(level, abs=5e-4)


def test_water_mirrors_about_the_horizon() -> None:
    light = torch.arange(10.0)[None, :, None].expand(3, 10, 4)
    found = mirrored(light, 0.5)[0, :, 0]
    assert found[5:].tolist() == [4, 3, 2, 1, 0]
    deep = mirrored(light, 0.3)[0, :, 0]
    assert deep[3:6].tolist() == [2, 1, 0]


def test_water_reflects_by_fresnel() -> None:
    """At the horizon everything, looking down steeply 2%, between by the textbook: 60 degrees to the vertical, 5.9%."""
    view = 1.0
    rows = torch.tensor([[0.5], [0.5 + math.tan(math.radians(30))], [0.5 + 1e4]])
    found = reflectance(rows, 0.5, view)[:, 0].tolist()
    t, u = math.radians(60), math.asin(math.sin(math.radians(60)) / WATER)
    middle = (math.sin(t - u) ** 2 / math.sin(t + u) ** 2 + math.tan(t - u) ** 2 / math.tan(t + u) ** 2) / 2
    assert found == pytest.approx([1, middle, ((WATER - 1) / (WATER + 1)) ** 2], abs=1e-4)


def test_a_streak_is_a_line_of_its_weight() -> None:
    one = torch.tensor([1.0])
    out = streaks(20.5 * one, 10 * one, 0 * one, 30 * one, 0.25 * one, (60, 40))
    assert float(out.double().sum()) == pytest.approx(0.25 * 30, rel=0.01)
    assert out.nonzero()[:, 1].unique().tolist() == [20]
    lit = out.nonzero()[:, 0]
    assert (int(lit.min()), int(lit.max())) in {(9, 40), (10, 39), (9, 39), (10, 40)}


def test_rain_falls_straight_and_wind_slants_it() -> None:
    dark = from_uint8(torch.full((1, 3, 120, 160), 60, dtype=torch.uint8))
    dark[:, :, :20] = from_uint8(torch.tensor(220, dtype=torch.uint8))
    straight = Rain(severity=5, wind=0.0).run(dark, seeds=[3]).images[0, 0, 40:]
    slanted = Rain(severity=5, wind=45.0).run(dark, seeds=[3]).images[0, 0, 40:]

    def alike(image: torch.Tensor, dx: int) -> float:
        """Correlation of pixels with those four rows below and dx to the right."""
        rest = (image - image.mean(1, keepdim=True)).double()
        a, b = rest[:-4, 10:-10], rest[4:, 10 + dx : rest.shape[1] - 10 + dx]
        return float((a * b).mean() / (a.std() * b.std()))

    assert alike(straight, 0) > alike(straight, 4) + 0.05
    assert alike(slanted, 4) > 2 * alike(slanted, 0)


def test_glare_falls_with_the_angle_as_published() -> None:
    assert veil(torch.tensor([0.2, 1.0, 10.0])).tolist() == pytest.approx([1, 1, (10 / 1000 + 5 / 100) / 15])


def test_more_dirt_keeps_what_was_there() -> None:
    image = torch.zeros(3, 80, 100)
    few, many = (specks(generator("dirt"), image, count) for count in (20, 200))
    assert bool((many >= few - 1e-6).all())
    assert float(many.mean()) > 2 * float(few.mean())


@pytest.mark.parametrize("name", OURS)
def test_stronger_is_further_from_the_photograph(name: str, scene: torch.Tensor) -> None:
    found = [float(psnr(create("corruption", name, severity=s).run(scene).images, scene)[0]) for s in range(1, 6)]
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == 5


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("size", [(2, 2), (3, 40), (41, 17)])
def test_any_size(name: str, size: tuple[int, int]) -> None:
    image = from_uint8((torch.rand(1, 3, *size, generator=generator("size")) * 255).to(torch.uint8))
    assert create("corruption", name, severity=5).run(image).images.shape == image.shape


@pytest.mark.parametrize("name", COMPOSED)
def test_a_composition_is_its_parts_in_order(name: str, scene: torch.Tensor) -> None:
    whole = create("corruption", name, severity=4)
    draws = [generator("corruption", name, seed) for seed in (5, 6)]
    images = torch.cat([scene, scene.flip(-1)])
    step = images
    for part in whole.PARTS:
        step = create("corruption", part, severity=4).run(step, seeds=part_seeds(draws)).images
    assert len(whole.PARTS) > 1
    assert torch.equal(whole.run(images, seeds=[5, 6]).images, step)


def test_the_papers_conditions_have_names_and_their_parts_move_no_pixels() -> None:
    names = {e.name for e in entries("corruption")}
    assert {"overcast+drops", "night", "night+drops", "snow", "snow+drops", "wet", "wet+drops", "overcast"} <= names
    for name in COMPOSED:
        assert not any(get("corruption", part).meta["geometric"] for part in get("corruption", name).obj.PARTS)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("haze", {"depth": "lidar"}),
        ("haze", {"horizon": 1.5}),
        ("wet-road", {"horizon": -0.1}),
        ("rain", {"wind": 90.0}),
        ("rain", {"speed": -1.0}),
    ],
)
def test_what_cannot_be_is_refused(name: str, args: dict[str, object]) -> None:
    with pytest.raises(InputError):
        create("corruption", name, **args)
