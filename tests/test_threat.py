"""Budgets: projection, rounding inside the ball, measurement on uint8, and the numbers people mistype."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from redsam.errors import BudgetViolation, InputError
from redsam.threat import Budget, Threat, on_lattice
from redsam.types import from_uint8, to_uint8

BUDGETS = st.one_of(
    st.builds(lambda e: Threat(norm="linf", eps=e), st.floats(0, 1)),
    st.builds(lambda e: Threat(norm="l2", eps=e), st.floats(0, 20)),
    st.builds(lambda k: Threat(norm="l0", eps=k), st.integers(0, 200)),
)


def picture(seed: int, count: int = 2, size: int = 9) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return from_uint8(torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8))


def noise(seed: int, scale: float, like: torch.Tensor) -> torch.Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed)) * scale


@pytest.mark.parametrize(
    ("text", "value"), [("8/255", 8 / 255), ("0.03", 0.03), ("0", 0.0), (" 1 / 255", 1 / 255), (2, 2.0)]
)
def test_eps_is_read_as_people_type_it(text: str | float, value: float) -> None:
    assert Threat.parse_eps(text) == value


@pytest.mark.parametrize("text", ["", "eight", "8/", "8/0", "1/2/3", "nan", "-1", "inf"])
def test_eps_that_is_no_number_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError, match="is not an eps"):
        Threat.parse_eps(text)


def test_eps_of_8_suggests_8_over_255() -> None:
    with pytest.raises(InputError) as caught:
        Threat(eps=8)
    assert "--eps 8/255" in str(caught.value)
    assert Threat(norm="l2", eps=8).eps == 8  # in l2 the number is plausible
    assert Threat(eps=1).eps == 1


@pytest.mark.parametrize(
    "bad",
    [
        {"eps": -0.1}, {"eps": math.nan}, {"eps": math.inf}, {"norm": "l3"}, {"space": "frame"}, {"region": "sky"},
        {"knowledge": "grey-box"}, {"queries": -1}, {"norm": "l0", "eps": 1.5},
    ],
)  # fmt: skip
def test_a_threat_that_cannot_be_meant_is_an_input_error(bad: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Threat(**bad)  # type: ignore[arg-type]


@given(threat=BUDGETS)
def test_a_threat_survives_json(threat: Threat) -> None:
    assert Threat.from_dict(json.loads(json.dumps(threat.to_dict()))) == threat


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(InputError, match="epsilon"):
        Threat.from_dict({"epsilon": 0.1})


def test_measure_counts_in_integers() -> None:
    clean = torch.zeros(3, 4, 4, dtype=torch.uint8)
    adv = clean.clone()
    adv[0, 1, 1], adv[2, 1, 1], adv[1, 3, 2] = 3, 4, 12
    assert Threat.measure(adv, clean) == Budget(linf=12 / 255, l2=13 / 255, l0=2)
    assert Threat.measure(clean, adv) == Threat.measure(adv, clean)  # no wrap-around below zero


@settings(max_examples=60, deadline=None)
@given(threat=BUDGETS, seed=st.integers(0, 99), scale=st.floats(0.001, 1), masked=st.booleans())
def test_projection_and_rounding_stay_inside(threat: Threat, seed: int, scale: float, masked: bool) -> None:
    clean = picture(seed)
    region = torch.rand(2, 1, 9, 9, generator=torch.Generator().manual_seed(seed)) > 0.5 if masked else None
    projected = threat.project(clean + noise(seed + 1, scale, clean), clean, region)
    assert float(projected.min()) >= 0 and float(projected.max()) <= 1
    again = threat.project(projected, clean, region)
    assert torch.allclose(again, projected, atol=1e-6)  # a projection is idempotent
    delivered = threat.quantise(projected, clean, region)
    assert delivered.dtype == torch.uint8
    for i in range(2):
        threat.check_float(projected[i], clean[i])
        threat.check(delivered[i], to_uint8(clean)[i], None if region is None else region[i])
        if region is not None:
            assert not ((delivered[i] != to_uint8(clean)[i]).any(0, keepdim=True) & ~region[i]).any()


@settings(max_examples=40, deadline=None)
@given(threat=BUDGETS, seed=st.integers(0, 99))
def test_rounding_is_inside_even_for_an_image_that_was_never_projected(threat: Threat, seed: int) -> None:
    clean = picture(seed)
    delivered = threat.quantise((clean + noise(seed, 0.3, clean)).clamp(0, 1), clean)
    for i in range(2):
        threat.check(delivered[i], to_uint8(clean)[i])


def test_linf_eps_between_levels_is_cut_and_8_over_255_is_not() -> None:
    clean = torch.full((1, 3, 4, 4), 0.5).mul(255).round().div(255)
    for eps, levels in ((8 / 255, 8), (0.031372549, 8), (0.03, 7), (1 / 255, 1), (0.5 / 255, 0), (1.0, 127)):
        threat = Threat(eps=eps)
        delivered = threat.quantise(threat.project(clean + 1, clean), clean)
        assert int(delivered.int().max()) - 128 == levels


def test_l2_rounding_takes_back_what_costs_least() -> None:
    clean = torch.zeros(1, 3, 2, 2)
    wanted = torch.zeros(12)
    wanted[:3] = torch.tensor([3.6, 2.9, 0.55])  # rounds to 4, 3, 1: sum of squares 26
    threat = Threat(norm="l2", eps=math.sqrt(3.6**2 + 2.9**2 + 0.55**2) / 255)  # 21.67
    steps = threat.quantise((wanted / 255).view(1, 3, 2, 2), clean).flatten()[:3].tolist()
    best = min(
        (
            (a - 3.6) ** 2 + (b - 2.9) ** 2 + (c - 0.55) ** 2, [a, b, c]
        )
        for a in (3, 4) for b in (2, 3) for c in (0, 1) if a * a + b * b + c * c <= 21.6725
    )[1]  # fmt: skip
    assert steps == best == [3, 3, 1]


def test_l2_keeps_the_direction_of_a_perturbation_too_faint_to_round() -> None:
    """Every value is below half a level: nearest rounding would deliver the clean image."""
    clean = from_uint8(torch.full((1, 3, 40, 40), 100, dtype=torch.uint8))
    direction = noise(3, 1.0, clean)
    threat = Threat(norm="l2", eps=0.02)
    delivered = threat.quantise(clean + 0.02 * direction / direction.norm(), clean)
    steps = delivered[0].float() - 100
    budget = int((0.02 * 255) ** 2)  # 26 whole units
    assert int(steps.square().sum()) == budget and float(steps.abs().max()) == 1
    strongest = direction.abs().flatten().topk(budget).indices
    assert torch.equal(steps.flatten()[strongest], direction.flatten()[strongest].sign())
    half = threat.quantise(clean + 0.01 * direction / direction.norm(), clean)[0].float() - 100
    assert int(half.square().sum()) == int((0.01 * 255) ** 2)  # no more than was asked for


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 3.0), ("l0", 30)])
def test_rounding_alone_keeps_the_region(norm: str, eps: float) -> None:
    clean = picture(4)
    region = torch.rand(2, 1, 9, 9, generator=torch.Generator().manual_seed(4)) > 0.5
    delivered = Threat(norm=norm, eps=eps).quantise((clean + 0.2).clamp(0, 1), clean, region)  # type: ignore[arg-type]
    moved = (delivered != to_uint8(clean)).any(1, keepdim=True)
    assert moved.any() and not (moved & ~region).any()


def test_l0_keeps_the_pixels_that_changed_most() -> None:
    clean = torch.zeros(1, 3, 3, 3)
    adv = torch.zeros(1, 3, 3, 3)
    adv[0, :, 0, 0], adv[0, 1, 1, 1], adv[0, 2, 2, 2] = 0.3, 0.9, 0.2
    kept = (Threat(norm="l0", eps=2).project(adv, clean) != 0).any(1)[0]
    assert kept.nonzero().tolist() == [[0, 0], [1, 1]]


def test_what_lies_outside_is_a_violation() -> None:
    clean = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    adv = clean.clone()
    adv[0, 0, 0] = 109
    with pytest.raises(BudgetViolation, match="linf"):
        Threat(eps=8 / 255).check(adv, clean)
    with pytest.raises(BudgetViolation, match="l2"):
        Threat(norm="l2", eps=8.9 / 255).check(adv, clean)
    with pytest.raises(BudgetViolation, match="l0"):
        Threat(norm="l0", eps=0).check(adv, clean)
    outside = torch.zeros(1, 4, 4, dtype=torch.bool)
    with pytest.raises(BudgetViolation, match="region"):
        Threat(eps=9 / 255, region="object").check(adv, clean, outside)
    assert Threat(eps=9 / 255).check(adv, clean).linf == 9 / 255


def test_without_lattice_half_a_level_is_forgiven_and_a_whole_one_is_not() -> None:
    clean = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    adv = clean.clone()
    adv[0, 0, 0] = 108
    with pytest.raises(BudgetViolation):
        Threat(eps=7.6 / 255).check(adv, clean)
    Threat(eps=7.6 / 255, lattice=False).check(adv, clean)
    with pytest.raises(BudgetViolation):
        Threat(eps=7.4 / 255, lattice=False).check(adv, clean)


def test_regions_follow_the_masks() -> None:
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[0, 0, 0], masks[1, 3, 3] = True, True
    inside = Threat(region="object").region_mask([masks])
    outside = Threat(region="background").region_mask([masks])
    assert inside is not None and outside is not None
    assert int(inside.sum()) == 2 and torch.equal(inside, ~outside)
    assert Threat().region_mask([masks]) is None


def test_labels_and_lattice() -> None:
    assert [Threat(eps=e).label for e in (8 / 255, 0.03)] == ["linf 8/255", "linf 7.65/255"]
    assert Threat(norm="l0", eps=100).label == "l0 100 px"
    assert on_lattice(picture(0)) and not on_lattice(picture(0) * 0.999)
