"""Gradient masking: models that mask on purpose set off what they should, an honest one sets off nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from redsam.attacks.masking import (
    MaskingReport,
    black_box_wins,
    dead_gradients,
    masking_report,
    noise_suffices,
    steps_do_not_help,
    unbounded_fails,
)
from redsam.errors import InputError
from redsam.models import Segmenter
from redsam.prompts import Prompt, point
from redsam.types import from_uint8, to_uint8

SIDE = 16
PROMPTS: list[list[Prompt]] = [[point(4, 4)], [point(9, 2)]]


# --- over numbers --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("finding", "triggered"),
    [
        (dead_gradients(zero=0.0, non_finite=0.0), False),
        (dead_gradients(zero=0.5, non_finite=0.0), False),
        (dead_gradients(zero=0.51, non_finite=0.0), True),
        (dead_gradients(zero=0.0, non_finite=1e-6), True),
        (black_box_wins(white=0.4, black=0.36), False),
        (black_box_wins(white=0.4, black=0.34), True),
        (black_box_wins(white=0.1, black=0.9), False),
        (steps_do_not_help(few=50.0, many=30.0, noise=60.0, left=0.4), False),
        (steps_do_not_help(few=60.0, many=60.0, noise=60.0, left=0.9), True),
        (steps_do_not_help(few=50.0, many=50.0, noise=60.0, left=0.4), False),  # converged, ahead of noise
        (steps_do_not_help(few=60.0, many=60.0, noise=60.0, left=0.05), False),  # nothing left to attack
        (steps_do_not_help(few=-1.0, many=-2.0, noise=-1.0, left=0.9), False),  # objectives may be negative
        (steps_do_not_help(few=60.0, many=float("inf"), noise=60.0, left=0.9), True),
        (unbounded_fails(left=0.0), False),
        (unbounded_fails(left=0.1), False),
        (unbounded_fails(left=0.2), True),
        (noise_suffices(noise=60.0, step=40.0), False),
        (noise_suffices(noise=60.0, step=60.0), True),
        (noise_suffices(noise=40.0, step=60.0), True),
        (noise_suffices(noise=0.0, step=0.0, left=0.0), False),
    ],
)
def test_a_check_decides_on_its_numbers(finding: Any, triggered: bool) -> None:
    assert finding.triggered is triggered
    assert finding.name and finding.meaning and finding.numbers


# --- on models -----------------------------------------------------------------------------------------------------
class _Wrong(torch.autograd.Function):
    """The identity, whose gradient points the wrong way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return -gradient


def levels(pixels: Tensor) -> Tensor:
    """Six grey levels fewer: pixels in steps of 6/255, whose derivative is zero."""
    return torch.floor(pixels * 255 / 6) * 6 / 255


def bent(toy_class: type, *, before: Callable[[Tensor], Tensor] | None = None, after: Any = None) -> Segmenter:
    """The toy with something done to its pixels or to its logits."""

    class Bent(toy_class):  # type: ignore[misc]
        def _embed(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
            logits, extra = super()._embed(pixels if before is None else before(pixels))
            return (logits if after is None else after(logits)), extra

    return Bent(side=SIDE)


def pictures() -> list[Tensor]:
    """Colours near the threshold of the toy, so that 8/255 decides; most pixels lie inside the mask."""
    generator = torch.Generator().manual_seed(4)
    made = 0.5 + 0.012 + 0.015 * torch.randn(2, 3, SIDE, SIDE, generator=generator)
    return list(from_uint8(to_uint8(made.clamp(0, 1))))


def report(model: Segmenter, **more: Any) -> MaskingReport:
    return masking_report(model, pictures(), PROMPTS, few=10, many=40, **{"queries": 300, **more})


def test_an_honest_model_sets_off_nothing(toy_class: type) -> None:
    found = report(bent(toy_class))
    assert found.triggered == ()
    assert (found.images, found.prompts, found.skipped) == (2, 2, 0)


def test_an_honest_model_that_small_budgets_cannot_break_sets_off_nothing(toy_class: type) -> None:
    """Most of its mask survives and ten steps are all it takes: converged is not masked."""
    found = report(bent(toy_class), eps=1 / 255)
    left = next(f.numbers["iou_left"] for f in found.findings if f.name == "more steps do not help")
    assert left > 0.5 and found.triggered == ()


def test_quantised_pixels_have_no_gradient(toy_class: type) -> None:
    found = report(bent(toy_class, before=levels))
    assert set(found.triggered) == {
        "dead gradients", "black box beats white box", "more steps do not help", "unbounded attack fails",
        "noise as strong as a gradient step",
    }  # fmt: skip
    assert found.findings[0].numbers["zero_share"] == 1.0


def test_saturated_logits_have_next_to_no_gradient(toy_class: type) -> None:
    found = report(bent(toy_class, after=lambda logits: 10 * torch.tanh(1000 * logits)))
    assert {"dead gradients", "unbounded attack fails"} <= set(found.triggered)
    assert 0.5 < found.findings[0].numbers["zero_share"] <= 1.0


def test_a_gradient_of_the_wrong_sign_leads_astray(toy_class: type) -> None:
    found = report(bent(toy_class, after=_Wrong.apply))
    assert set(found.triggered) == {
        "black box beats white box", "more steps do not help", "unbounded attack fails",
        "noise as strong as a gradient step",
    }  # fmt: skip


def test_a_gradient_that_is_no_number_is_found(toy_class: type) -> None:
    class Breaks(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
            return gradient * float("nan")

    found = report(bent(toy_class, after=Breaks.apply))
    assert "dead gradients" in found.triggered and found.findings[0].numbers["non_finite_share"] == 1.0


def test_the_report_counts_and_survives_json(toy_class: type) -> None:
    model = bent(toy_class)
    found = report(model)
    before = model.encoded  # type: ignore[attr-defined]
    assert before == found.forwards
    back = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert back["triggered"] == [] and len(back["findings"]) == 5
    assert [f["name"] for f in back["findings"]] == [f.name for f in found.findings]


def test_prompts_without_a_clean_mask_are_left_out(toy_class: type) -> None:
    dark = torch.zeros(3, SIDE, SIDE)
    found = masking_report(bent(toy_class), [dark, *pictures()], [[point(1, 1)], *PROMPTS], many=10, queries=50)
    assert (found.images, found.prompts, found.skipped) == (2, 2, 1)
    with pytest.raises(InputError, match="empty"):
        masking_report(bent(toy_class), [dark], [[point(1, 1)]], many=10, queries=50)


def test_bad_input_is_refused(toy_class: type) -> None:
    model = bent(toy_class)
    with pytest.raises(InputError, match="one grey level"):
        report(model, eps=0.0)
    with pytest.raises(InputError, match="no objective on masks"):
        report(model, objective="feature-l2")
    with pytest.raises(InputError, match="lists of prompts"):
        masking_report(model, pictures(), PROMPTS[:1])
    model.differentiable = False
    with pytest.raises(InputError, match="gives none"):
        report(model)
