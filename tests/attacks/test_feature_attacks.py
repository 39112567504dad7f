"""Attacks on features: each loss by hand, by finite differences, and as what the attack really follows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from redsam.attacks.aa import AA
from redsam.attacks.almost_nothing import AlmostNothing
from redsam.attacks.apgd import APGD
from redsam.attacks.feature import FeatureAttack, Features, distance, dominance, nudged, similarity
from redsam.attacks.ilpd import ILPD, decayed
from redsam.attacks.loop import State
from redsam.attacks.pata import PATA
from redsam.attacks.patapp import PATApp
from redsam.attacks.photographs import album, choices, crops
from redsam.attacks.tap import TAP, power_normalised, roughness
from redsam.attacks.task import Task
from redsam.attacks.uad import UAD
from redsam.data.demo import demo_root
from redsam.data.images import write_png
from redsam.errors import InputError
from redsam.models import Segmenter, tiny
from redsam.models.features import tap
from redsam.models.resample import resize
from redsam.prompts import point
from redsam.threat import Threat
from redsam.types import from_uint8, to_uint8

ALL: dict[str, FeatureAttack] = {
    "tap": TAP(steps=5), "ilpd": ILPD(steps=5), "aa": AA(steps=5), "pata": PATA(steps=5), "pata++": PATApp(steps=5),
    "pata++ patches": PATApp(steps=5, source="patches"), "uad": UAD(steps=5, iterations=2),
}  # fmt: skip
TOWARDS = ("aa", "pata", "pata++", "pata++ patches")
THREAT = Threat(eps=8 / 255)


@pytest.fixture(scope="module", params=["sam", "sam2"])
def model(request: pytest.FixtureRequest) -> Segmenter:
    """Blocks of one shape, and blocks of several."""
    return tiny(request.param, image_size=32 if request.param == "sam" else 64)


def pictures(count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    coarse = torch.rand(count, 3, 6, 8, generator=generator)
    return from_uint8(to_uint8(resize(coarse, (24, 32))))


def task_of(model: Segmenter, images: Tensor, seeds: list[int] | None = None) -> Task:
    none: list[list[Any]] = [[] for _ in images]
    return Task(segmenter=model, clean=images, prompts=none, threat=THREAT, seeds=seeds or [0] * len(images))


# --- losses by hand ------------------------------------------------------------------------------------------------
def test_a_distance_runs_over_all_blocks_of_an_image() -> None:
    one = [torch.tensor([[[3.0, 1.0]], [[0.0, 0.0]]]), torch.tensor([[4.0], [2.0]])]
    other = [torch.tensor([[[0.0, 1.0]], [[0.0, 0.0]]]), torch.tensor([[0.0], [0.0]])]
    assert distance(one, other).tolist() == [5.0, 2.0]


def test_a_distance_of_zero_has_a_slope_of_zero() -> None:
    one = torch.ones(1, 4, requires_grad=True)
    distance([one], [torch.ones(1, 4)]).sum().backward()
    assert one.grad is not None and one.grad.tolist() == [[0.0] * 4]


def test_a_similarity_is_the_mean_of_one_cosine_per_block() -> None:
    one = [torch.tensor([[1.0, 0.0]]), torch.tensor([[5.0, 0.0, 0.0]])]
    other = [torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 4.0, 0.0]])]
    assert similarity(one, other).item() == pytest.approx((1 + 0.6) / 2)


def test_the_stronger_features_dominate_the_mixture() -> None:
    f, c = [torch.tensor([[2.0, 0.0]])], [torch.tensor([[0.0, 1.0]])]
    assert dominance(f, c).item() == pytest.approx(2 / math.sqrt(5) - 1 / math.sqrt(5))
    assert dominance(c, f).item() == pytest.approx(-1 / math.sqrt(5))
    assert dominance(f, f).item() == pytest.approx(0, abs=1e-6)


def test_power_normalisation_keeps_signs_and_a_finite_slope_at_zero() -> None:
    f = torch.tensor([[-4.0, 9.0, 0.0, 1e-9]], requires_grad=True)
    (out,) = power_normalised([f], 0.5)
    assert torch.allclose(out, torch.tensor([[-2.0, 3.0, 0.0, 1e-3]]))
    out.sum().backward()
    assert f.grad is not None and torch.allclose(f.grad, torch.tensor([[0.25, 1 / 6, 0.0, 0.0]]))


def test_roughness_sums_the_windows_means() -> None:
    even = torch.full((1, 3, 3, 6), 0.1)
    stripes = even * torch.tensor([1.0, -1.0, 0.0, 2.0, -1.0, -1.0])
    assert roughness(even, 3).item() == pytest.approx(3 * 2 * 0.1)
    assert roughness(stripes, 3).item() == pytest.approx(0, abs=1e-6)
    assert roughness(even[..., :2, :2], 3).item() == pytest.approx(3 * 0.1)  # smaller than a window


def test_a_decayed_perturbation_is_its_share() -> None:
    (out,) = decayed([torch.tensor([[3.0, 1.0]])], [torch.tensor([[1.0, 1.0]])], 0.25)
    assert out.tolist() == [[1.5, 1.0]]


def test_slopes_agree_with_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    f, g, c, d = (torch.randn(2, 3, generator=generator, dtype=torch.float64).requires_grad_(True) for _ in range(4))
    fixed = [c.detach(), d.detach()]
    assert gradcheck(lambda a, b: distance(power_normalised([a, b], 0.5), power_normalised(fixed, 0.5)), (f, g))
    assert gradcheck(lambda a, b: similarity([a, b], fixed), (f, g))
    assert gradcheck(lambda a, b: dominance([a, b], fixed), (f, g))
    assert gradcheck(lambda x: roughness(x.view(2, 1, 1, 3), 3), (f,))


def test_half_precision_does_not_overflow() -> None:
    one, other = torch.full((1, 1000), 200.0).half(), torch.full((1, 1000), -200.0).half()
    assert distance([one], [other]).item() == pytest.approx(400 * math.sqrt(1000), rel=1e-3)
    assert similarity([one], [other]).item() == pytest.approx(-1, abs=1e-3)
    assert dominance([one], [one * 0.5]).isfinite().all()


# --- the attacks follow those formulas -----------------------------------------------------------------------------
def norm(one: Features, other: Features) -> Tensor:
    """Another way to the distance over all blocks."""
    return sum((a - b).flatten(1).pow(2).sum(1) for a, b in zip(one, other, strict=True)) ** 0.5  # type: ignore


def first_loss(attack: FeatureAttack, model: Segmenter, images: Tensor) -> Tensor:
    """At the clean images: without a budget no start can leave them."""
    return attack.run(model, images, [[]] * len(images), threat=Threat(eps=0)).losses[0]


def test_aa_is_the_distance_to_the_targets_features(model: Segmenter) -> None:
    images = pictures()
    targets = torch.stack([others[0] for others in choices(task_of(model, images), None)])
    clean, wanted = tap(model, images)[1], tap(model, targets)[1]
    assert torch.allclose(first_loss(AA(steps=1), model, images), norm(clean, wanted), rtol=1e-4)


def test_pata_adds_dominance_over_a_competitor(model: Segmenter) -> None:
    images, weight = pictures(1), 7.0
    target, competitor = choices(task_of(model, images), None)[0][:2]
    assert float((target - competitor).abs().mean()) > 0.02
    f, t, c = (tap(model, x)[1] for x in (images, target[None], competitor[None]))
    cosine = torch.nn.functional.cosine_similarity
    gaps = []
    for a, b in zip(f, c, strict=True):
        a, b = a.flatten(), b.flatten()
        gaps.append(cosine(a, a + b, dim=0) - cosine(b, a + b, dim=0))
    expected = norm(f, t) - weight * torch.stack(gaps).mean()
    assert torch.allclose(first_loss(PATA(steps=1, weight=weight), model, images), expected, rtol=1e-4)


def test_tap_and_ilpd_start_at_nothing_and_trade_distance_for_smoothness(model: Segmenter) -> None:
    images = pictures()
    for attack in (TAP(steps=1), ILPD(steps=1)):
        # Passes with and without gradient may differ in the last bit, which the square root enlarges.
        assert float(first_loss(attack, model, images).abs().max()) < 1e-3
    left = {}
    for eta in (0.0, 10.0):
        delivered = from_uint8(TAP(steps=8, eta=eta).run(model, images, [[], []], threat=THREAT).images)
        left[eta] = roughness(delivered - images, 3)
    assert (left[10.0] < 0.7 * left[0.0]).all()


def test_the_nudge_is_faint_and_in_the_models_units(model: Segmenter) -> None:
    images = torch.full((2, 3, 200, 200), 0.5)
    generators = [torch.Generator().manual_seed(s) for s in (1, 2)]
    state = State(
        threat=THREAT, steps=1, clean=images, region=None, x=images, best=images, best_rank=torch.zeros(2),
        generators=generators, active=[0, 1], rows=torch.arange(2),
    )  # fmt: skip
    spread = (nudged(0.01)(task_of(model, images))(state) - images).std((2, 3))
    assert torch.allclose(spread, 0.01 * torch.tensor(model.frame(200, 200).std).expand(2, 3), rtol=0.03)


@pytest.mark.parametrize("name", list(ALL))
def test_it_lowers_its_loss_and_moves_the_features_where_it_says(model: Segmenter, name: str) -> None:
    images, attack = pictures(), ALL[name]
    result = attack.run(model, images, [[], []], threat=THREAT, seeds=[1, 2])
    assert (result.losses[-1] < result.losses[0]).all() and not any(result.flags)
    before, after = tap(model, images)[1], tap(model, from_uint8(result.images))[1]
    if name in TOWARDS:
        targets = torch.stack([others[0] for others in choices(task_of(model, images, [1, 2]), None)])
        wanted = tap(model, targets)[1]
        assert (norm(after, wanted) < 0.97 * norm(before, wanted)).all()
    else:
        noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(3)) * 16 / 255 - 8 / 255
        random = tap(model, (images + noise).clamp(0, 1))[1]
        assert (norm(after, before) > 1.2 * norm(random, before)).all()


@pytest.mark.parametrize("name", list(ALL))
def test_a_batch_is_a_loop_where_blocks_differ(name: str) -> None:
    model, attack = tiny("sam2"), ALL[name]
    together = attack.run(model, pictures(), [[], []], threat=THREAT, seeds=[1, 2])
    for i in range(2):
        alone = attack.run(model, pictures()[i : i + 1], [[]], threat=THREAT, seeds=[i + 1])
        assert float((alone.images[0] != together.images[i]).float().mean()) < 0.002
        assert torch.allclose(alone.losses[:, 0], together.losses[:, i], rtol=1e-4)


@pytest.mark.parametrize("source", ["photographs", "patches"])
def test_every_image_draws_its_own_competitors(source: Any) -> None:
    """With all weight on the competitor its choice shows in every loss."""
    model, attack = tiny("sam", image_size=32), PATApp(steps=3, weight=1e5, source=source)
    together = attack.run(model, pictures(), [[], []], threat=THREAT, seeds=[1, 2]).losses
    alone = attack.run(model, pictures()[1:], [[]], threat=THREAT, seeds=[2]).losses
    assert torch.allclose(together[:, 1], alone[:, 0], rtol=1e-2)
    fixed = PATA(steps=3, weight=1e5).run(model, pictures()[1:], [[]], threat=Threat(eps=0), seeds=[2]).losses
    fresh = PATApp(steps=3, weight=1e5, source=source).run(
        model, pictures()[1:], [[]], threat=Threat(eps=0), seeds=[2]
    )  # at the clean image only the competitor changes from step to step
    assert float(fixed.std()) < 1e-2 * float(fresh.losses.std())


@pytest.mark.parametrize("name", list(ALL))
def test_passes_are_counted_and_a_limit_is_kept(name: str) -> None:
    model, attack = tiny("sam", image_size=32), ALL[name]
    spent = attack.run(model, pictures(), [[], []], threat=THREAT).forwards
    assert spent % 2 == 0
    exact = attack.run(model, pictures(), [[], []], threat=Threat(eps=8 / 255, queries=spent // 2))
    assert exact.forwards == spent
    with pytest.raises(InputError, match="forward passes"):
        attack.run(model, pictures(), [[], []], threat=Threat(eps=8 / 255, queries=spent // 2 - 1))


@pytest.mark.parametrize("name", list(ALL))
def test_it_stops_where_it_is_told(name: str) -> None:
    model, attack = tiny("sam", image_size=32), ALL[name]
    args = {f: getattr(attack, f) for f in attack.__dataclass_fields__} | {"stop_at": 1.0}
    where = [[point(3, 3)], [point(9, 9)]]
    result = type(attack)(**args).run(model, pictures(), where, threat=THREAT)
    assert result.steps == (0, 0)  # any IoU is at most 1
    with pytest.raises(InputError, match="no prompt"):
        type(attack)(**args).run(model, pictures(), [[], []], threat=THREAT)


@pytest.mark.parametrize("name", list(ALL))
def test_a_model_without_blocks_is_refused(toy_class: Any, name: str) -> None:
    with pytest.raises(InputError, match="almost-nothing"):
        ALL[name].run(toy_class(side=8), pictures(), [[], []], threat=THREAT)


def test_blocks_can_be_chosen_and_survive_a_log(model: Segmenter) -> None:
    images = pictures(1)
    target = choices(task_of(model, images), None)[0][0][None]
    clean, wanted = (tap(model, x, [1])[1] for x in (images, target))
    assert torch.allclose(first_loss(AA(steps=1, layers=(1,)), model, images), norm(clean, wanted), rtol=1e-4)
    assert AA(layers=[1]) == AA(layers=(1,))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no block"):
        AA(layers=())
    with pytest.raises(InputError, match="encoder blocks"):
        AA(layers=(77,)).run(model, images, [[]], threat=THREAT)


def test_half_precision_models_can_be_attacked() -> None:
    model = tiny("sam", image_size=32, dtype=torch.bfloat16)
    result = PATA(steps=3).run(model, pictures(1), [[]], threat=THREAT)
    assert result.flags == ("",) and result.losses.isfinite().all() and result.losses[-1] < result.losses[0]


# --- pictures to aim at --------------------------------------------------------------------------------------------
def test_no_picture_is_its_own_target(model: Segmenter) -> None:
    count = len(album())
    assert count >= 5
    for photo in album():
        for image in (photo, from_uint8(to_uint8(resize(photo[None], (40, 60))))[0]):
            (others,) = choices(task_of(model, image[None], [4]), None)
            assert len(others) == count - 1 and all(o.shape == image.shape for o in others)
            assert all(float((o - image).abs().mean()) > 0.02 for o in others)


def test_the_seed_chooses_the_target(model: Segmenter) -> None:
    images = pictures(1).expand(12, -1, -1, -1)
    first = [others[0] for others in choices(task_of(model, images, list(range(12))), None)]
    assert len({round(float(f.sum()), 3) for f in first}) > 3
    again = choices(task_of(model, images[:1], [5]), None)[0][0]
    assert torch.equal(again, first[5])


def test_a_target_of_ones_own(model: Segmenter, tmp_path: Path) -> None:
    path = tmp_path / "target.png"
    write_png(path, torch.full((3, 50, 50), 255, dtype=torch.uint8))
    images = pictures(1)
    wanted = tap(model, torch.ones_like(images))[1]
    assert torch.allclose(
        first_loss(AA(steps=1, target=str(path)), model, images), norm(tap(model, images)[1], wanted), rtol=1e-4
    )
    others = choices(task_of(model, images), str(demo_root() / "coffee.jpg"))[0]
    assert len(others) == len(album())  # given first, then all photographs but itself
    with pytest.raises(InputError, match="attacked image itself"):
        AA(target=str(path)).run(model, torch.ones(1, 3, 24, 32), [[]], threat=THREAT)
    with pytest.raises(InputError, match="no such file"):
        PATA(target=str(tmp_path / "none.png")).run(model, images, [[]], threat=THREAT)


def test_patches_are_halves_of_the_picture() -> None:
    ramp = (torch.arange(64.0) / 63).expand(3, 10, 64)
    patches = crops(ramp, torch.Generator().manual_seed(0))
    spans = []
    for _ in range(20):
        patch = next(patches)
        assert patch.shape == ramp.shape
        spans.append((float(patch.min()), float(patch.max())))
    assert all(high - low == pytest.approx(31 / 63, abs=0.02) for low, high in spans)
    assert len({round(low, 3) for low, _ in spans}) > 5


def test_an_unknown_source_of_competitors_is_said() -> None:
    with pytest.raises(InputError, match="photographs, patches"):
        PATApp(source="noise")  # type: ignore[arg-type]


# --- segment (almost) nothing --------------------------------------------------------------------------------------
@pytest.mark.parametrize("threat", [THREAT, Threat(norm="l2", eps=1.0)], ids=["linf", "l2"])
def test_almost_nothing_is_apgd_on_the_embeddings_distance(toy_class: Any, threat: Threat) -> None:
    model, images = toy_class(side=16), pictures()
    one = AlmostNothing(steps=12).run(model, images, [[], []], threat=threat, seeds=[1, 2])
    two = APGD(steps=12, objective="feature-l2").run(model, images, [[], []], threat=threat, seeds=[1, 2])
    assert torch.equal(one.images, two.images) and torch.equal(one.losses, two.losses)
    moved = model.encode(from_uint8(one.images)).features - model.encode(images).features
    assert torch.allclose(-moved.flatten(1).norm(dim=1), one.losses.min(0).values, rtol=0.05)


def test_almost_nothing_reaches_the_whole_ball_of_a_linear_encoder(toy_class: Any) -> None:
    """Each feature may move by gain * eps; all moved are side * gain * eps apart."""
    model = toy_class(side=16)
    middle = from_uint8(torch.full((1, 3, 16, 16), 128, dtype=torch.uint8))
    result = AlmostNothing(steps=30).run(model, middle, [[]], threat=THREAT)
    assert float(result.losses.min()) == pytest.approx(-16 * 20 * 8 / 255, rel=0.02)
