"""Each branch of the verdict, on rows made for it."""

from __future__ import annotations

from typing import Any

import pytest

from redsam.report.reading import Number, Row, budget_text
from redsam.report.verdict import headline_rows, verdict, verdicts


def row(clean: float = 0.7, adv: float = 0.1, half: float = 0.04, **changes: Any) -> Row:
    loss = clean - adv
    fields: dict[str, Any] = {
        "cell": "c", "model": "m", "attack": "pgd", "label": "pgd-40",
        "norm": "linf", "eps": 8 / 255, "prompt": "point",
        "protocol": "point", "reference": "ground truth", "n_prompts": 90, "n_images": 30, "n_failed": 0,
        "clean": Number(value=clean, lo=clean - 0.05, hi=clean + 0.05),
        "adv": Number(value=adv, lo=adv - 0.02, hi=adv + 0.02),
        "delta": Number(value=loss, lo=loss - half, hi=loss + half), "asr50": Number(), "asr10": Number(), "psnr": None,
        "linf_max": 8 / 255, "raw": {},
    }  # fmt: skip
    return Row(**(fields | changes))


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        (row(0.7, 0.1), "breaks"),
        (row(0.7, 0.36, half=0.1), "hurt"),  # half of it may be lost, or less: damaged is what is sure
        (row(0.7, 0.55), "hurt"),
        (row(0.7, 0.69, half=0.03), "holds"),
        (row(0.7, 0.65, half=0.08), "undecided"),
        (row(0.7, 0.70, half=0.06), "undecided"),
        (row(0.33, 0.01), "weak"),
        (row(0.63, 0.01, prompt="box"), "weak"),
        (row(0.33, 0.01, prompt="mask"), "breaks"),  # no bar is set for masks
        (row(0.7, 0.1, n_images=4), "few"),
        (row(0.7, 0.1, n_failed=10), "few"),
        (row(0.7, 0.1, delta=Number(value=0.6)), "undecided"),
        (row(attack="none"), "empty"),
        (row(adv=0.1, eps=None), "empty"),
    ],
)
def test_branches(case: Row, kind: str) -> None:
    assert verdict([case], "m").kind == kind


def test_sentence_names_numbers_interval_n_reference_and_budget() -> None:
    sentence = verdict([row(0.7, 0.1)], "m").sentence
    for part in (
        "m breaks",
        "8/255",
        "0.70 [0.65, 0.75]",
        "0.10 [0.08, 0.12]",
        "n = 90 prompts on 30 images",
        "ground truth",
    ):
        assert part in sentence


def test_weak_names_the_bar_and_still_says_what_happened() -> None:
    found = verdict([row(0.2, 0.05), row(0.7, 0.1, prompt="box")], "m")
    assert found.lead == "m is too weak to draw conclusions from" and "0.34" in found.rest and "0.64" not in found.rest
    assert "0.70 [0.65, 0.75] to 0.10" in " ".join(found.notes)


def test_texts_have_a_bar_of_their_own() -> None:
    found = verdict([row(0.29, 0.05, prompt="text")], "m")
    assert found.kind == "weak" and "0.29" in found.rest and "with texts (bar 0.30" in found.rest
    assert verdict([row(0.31, 0.05, prompt="text")], "m").kind == "breaks"


def test_the_bar_needs_ground_truth() -> None:
    found = verdict([row(0.2, 0.05, reference="clean prediction")], "m")
    assert found.kind == "breaks" and any("no ground truth" in n for n in found.notes)


def test_strongest_attack_at_the_published_budget_speaks() -> None:
    rows = [row(0.7, 0.3, label="fgsm"), row(0.7, 0.2), row(0.7, 0.0, eps=16 / 255), row(0.8, 0.6, prompt="box")]
    assert [(r.label, r.prompt) for r in headline_rows(rows)] == [("pgd-40", "point"), ("pgd-40", "box")]
    assert headline_rows([row(eps=2 / 255), row(eps=4 / 255)])[0].eps == 4 / 255


def test_rows_over_mixed_prompts_never_speak() -> None:
    assert headline_rows([row(prompt="all")]) == []


def test_one_verdict_a_model_and_one_for_nothing() -> None:
    assert [v.model for v in verdicts([row(), row(model="n")])] == ["m", "n"]
    assert verdicts([])[0].kind == "empty"


@pytest.mark.parametrize(
    ("norm", "eps", "text"),
    [
        ("linf", 8 / 255, "8/255"),
        ("linf", 0.5 / 255, "0.5/255"),
        ("l2", 2.0, "l2 2"),
        ("l0", 100.0, "100 px"),
        ("linf", None, "none"),
    ],
)
def test_budget_text(norm: str, eps: float | None, text: str) -> None:
    assert budget_text(norm, eps) == text
