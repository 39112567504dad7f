"""Verdicts on made-up records whose answer is known: each claim true, false, too close to call, and not measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from claims import BENCHMARK, CLAIMS, Claim, judge
from evidence import (
    NOT_REPRODUCED,
    REPRODUCED,
    UNDECIDED,
    Bank,
    Contrast,
    Field,
    NotMeasured,
    Record,
    column,
    contrast,
    find,
    minus,
    of,
    pooled,
    verdict,
)

from redsam.bench.statistics import difference_interval, resamples
from redsam.seeds import stable_seed

IMAGES = 20
BY_ID = {claim.id: claim for claim in CLAIMS}
Level = float | tuple[float, float]  # of all prompts, or (point, box)


def field(run: str, attack: str, level: Level, *, clean: Level = 0.8, noise: float = 0.01, pixels: int = 0,
          victim: str = "lab-b", crafted: str = "", tested: str = "", images: int = IMAGES) -> Field:  # fmt: skip
    """IoU about `level`, one point and one box an image; half of the images lie above it and half below, which ones is
    the attack's own, so that equal levels are equal means and no draw of luck decides."""
    rng = np.random.default_rng(stable_seed(run, attack, victim, crafted, tested) % 2**32)
    signs = [rng.permutation(np.resize([1.0, -1.0], images)) for _ in range(2)]

    def prompt(i: int, n: int) -> Record:
        at = [v[i] if isinstance(v, tuple) else v for v in (level, clean)]
        adv = float(at[0] + noise * signs[i][n])
        return {
            "kind": ("point", "box")[i],
            "iou_clean_gt": at[1],
            "iou_adv_gt": adv,
            "iou_adv_clean": adv,
            "l0": pixels,
        }

    records = [{"sample": f"a/{n}", "status": "ok", "prompts": [prompt(0, n), prompt(1, n)]} for n in range(images)]
    return Field(
        run=run, attack=attack, victim=victim, crafted=crafted, tested=tested,
        records=(*records, {"sample": "a/broken", "status": "failed", "prompts": []}),
    )  # fmt: skip


def table(**levels: Level) -> list[Field]:
    """On the source, names with _ for -."""
    return [field("rga-transfer", name.replace("_", "-"), level) for name, level in levels.items()]


def fading(*lost: float) -> list[Field]:
    """The benchmark's attacks take these shares of their own clean IoU from b, l and h."""
    clean = {"lab-b": 0.5, "lab-l": 0.7, "lab-h": 0.9}
    return [
        field("rga-transfer", attack, c * (1 - share), clean=c, victim=victim)
        for attack in BENCHMARK
        for (victim, c), share in zip(clean.items(), lost, strict=True)
    ]


def score(simba: float, ebad: float) -> list[Field]:
    return [field("score", name, iou) for name, iou in (("simba", simba), ("ebad", ebad), ("square", 0.5))]


def sweep(**found: tuple[float, int]) -> list[Field]:
    """IoU with the clean mask and modified pixels, for k and for all."""
    names = {k: "figa, k = all (FGSM*)" if k == "all" else f"figa, k = {k[1:]}" for k in found}
    return [field("figa-sweep", names[k], iou, pixels=pixels) for k, (iou, pixels) in found.items()]


def ablation(whole: float, without: float) -> list[Field]:
    return [field("rga-ablation", "rga", whole), field("rga-ablation", "rga, no map", without)]


def crossed(own: float, other: float, cross: float) -> list[Field]:
    """PGD asked with its own kind and with the other, and the cross-prompt attack."""
    kinds = ("point", "box")
    run = "cross-prompt-matrix"
    single = [
        field(run, "pgd, one kind of prompt", own if c == t else other, crafted=c, tested=t)
        for c in kinds
        for t in kinds
    ]
    clean = [field(run, "clean", 0.8, tested=t) for t in kinds]
    return clean + single + [field(run, "cross-prompt", cross, crafted="all kinds", tested=t) for t in kinds]


CASES: list[tuple[str, Bank, str]] = [
    ("rga-uad-aa", table(rga=0.2, uad=0.3, aa=0.4), REPRODUCED),
    ("rga-uad-aa", table(rga=0.4, uad=0.3, aa=0.4), NOT_REPRODUCED),
    ("rga-uad-aa", table(rga=0.2, uad=0.3, aa=0.3), UNDECIDED),
    ("rga-uad-aa", table(rga=0.2, uad=0.3), UNDECIDED),
    ("pata-attack-sam-k", table(pata=0.3, attack_sam_k=0.4), REPRODUCED),
    ("pata-attack-sam-k", table(pata=0.4, attack_sam_k=0.3), NOT_REPRODUCED),
    ("pata-attack-sam-k", table(pata=0.4, attack_sam_k=0.4), UNDECIDED),
    ("transfer-weakens", fading(0.5, 0.3, 0.1), REPRODUCED),
    # From b to l more IoU is lost (0.25, 0.28) but a smaller share of the victim's own: that is what counts.
    ("transfer-weakens", fading(0.5, 0.4, 0.2), REPRODUCED),
    ("transfer-weakens", fading(0.3, 0.5, 0.1), NOT_REPRODUCED),
    ("transfer-weakens", fading(0.5, 0.3, 0.3), UNDECIDED),
    ("transfer-weakens", [f for f in fading(0.5, 0.3, 0.1) if f.victim != "lab-h"], UNDECIDED),
    ("boxes-beat-points", table(uad=(0.2, 0.6), aa=(0.3, 0.6), attack_sam_k=(0.4, 0.7)), REPRODUCED),
    ("boxes-beat-points", table(uad=(0.2, 0.6), aa=(0.6, 0.3), attack_sam_k=(0.4, 0.7)), NOT_REPRODUCED),
    ("boxes-beat-points", table(uad=(0.2, 0.6), aa=(0.4, 0.4), attack_sam_k=(0.4, 0.7)), UNDECIDED),
    ("black-box-fails", score(0.97, 0.96), REPRODUCED),
    ("black-box-fails", score(0.97, 0.6), NOT_REPRODUCED),
    ("black-box-fails", score(0.97, 0.9), UNDECIDED),
    ("black-box-fails", score(0.97, 0.96)[:1], UNDECIDED),
    ("figa-few-pixels", sweep(k1=(0.9, 1), k100=(0.22, 900), all=(0.2, 10_000)), REPRODUCED),
    # One k has the effect and the other the pixels: no k has both.
    ("figa-few-pixels", sweep(k1=(0.9, 1), k100=(0.2, 9000), all=(0.2, 10_000)), NOT_REPRODUCED),
    ("figa-few-pixels", sweep(k1=(0.9, 1), k100=(0.25, 900), all=(0.2, 10_000)), UNDECIDED),
    ("figa-few-pixels", sweep(all=(0.2, 10_000)), UNDECIDED),
    ("rga-map", ablation(0.2, 0.3), REPRODUCED),
    ("rga-map", ablation(0.3, 0.2), NOT_REPRODUCED),
    ("rga-map", ablation(0.2, 0.2), UNDECIDED),
    ("cross-prompt", crossed(0.1, 0.4, 0.2), REPRODUCED),
    ("cross-prompt", crossed(0.1, 0.2, 0.4), NOT_REPRODUCED),
    # Stronger than what was made for the very kind is not asked for, and no help either.
    ("cross-prompt", crossed(0.5, 0.3, 0.3), UNDECIDED),
]


@pytest.mark.parametrize(("name", "bank", "expected"), CASES)
def test_the_verdict_is_the_known_one(name: str, bank: Bank, expected: str) -> None:
    assert judge(BY_ID[name], bank)["verdict"] == expected


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: c.id)
def test_what_was_not_measured_is_said(claim: Claim) -> None:
    found = judge(claim, [])
    assert found["verdict"] == UNDECIDED and found["missing"].startswith("not measured: ") and not found["groups"]
    assert claim.source and claim.statement.endswith(".") and claim.deviation


def test_every_claim_has_each_verdict_tried() -> None:
    assert {(name, v) for name, _, v in CASES} == {
        (name, v) for name in BY_ID for v in (REPRODUCED, NOT_REPRODUCED, UNDECIDED)
    }


def test_too_few_images_decide_nothing() -> None:
    few = [field("rga-transfer", name, at, images=4) for name, at in (("pata", 0.1), ("attack-sam-k", 0.9))]
    found = judge(BY_ID["pata-attack-sam-k"], few)
    (one,) = found["groups"][0]
    assert found["verdict"] == UNDECIDED and one["lo"] is None and one["images"] == 4 and one["value"] > 0.7


# --- evidence ---------------------------------------------------------------------------------------------------------
def columns(noise: float = 0.1) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    made = [field("x", name, level, noise=noise) for name, level in (("a", 0.5), ("b", 0.4))]
    return made[0].records, made[1].records


def test_a_difference_is_that_of_the_bench() -> None:
    a, b = (column(r, of("iou_adv_gt")) for r in columns())
    found = contrast("d", [a, b], minus)
    weights = resamples(IMAGES, seed=stable_seed("claims", "d"))
    names = sorted(a)
    sides = [(np.array([c[s][0] for s in names]), np.array([float(c[s][1]) for s in names])) for c in (a, b)]
    expected = difference_interval(sides[0], sides[1], weights)
    assert found.lo is not None and found.hi is not None
    assert (found.value, found.lo, found.hi) == pytest.approx((expected.value, expected.lo, expected.hi), abs=1e-12)
    assert found.lo < 0.1 < found.hi


def test_only_images_of_both_sides_count() -> None:
    a, b = (column(r, of("iou_adv_gt")) for r in columns())
    short = {s: v for s, v in b.items() if s != "a/3"}
    assert contrast("d", [a, short], minus).images == IMAGES - 1
    with pytest.raises(NotMeasured, match="no image"):
        contrast("d", [a, {"b/0": (1.0, 1)}], minus)
    both = pooled([columns()[0], [r for r in columns()[1] if r["sample"] != "a/3"]], of("iou_adv_gt"))
    assert "a/3" not in both and both["a/4"][1] == 4


def test_prompts_are_pooled_and_kinds_kept_apart() -> None:
    record = {"sample": "s", "status": "ok", "prompts": [
        {"kind": "point", "v": 0.1}, {"kind": "point", "v": 0.3}, {"kind": "box", "v": 0.8}, {"kind": "box", "v": None},
    ]}  # fmt: skip
    assert column([record], of("v"))["s"] == (pytest.approx(1.2), 3)
    assert column([record], of("v"), "point")["s"] == (pytest.approx(0.4), 2)
    assert column([record | {"status": "failed"}], of("v")) == {}


def test_two_fields_of_one_name_are_an_error() -> None:
    one = field("x", "a", 0.5)
    with pytest.raises(ValueError, match="2 fields"):
        find([one, one], run="x", attack="a")


def at(lo: float, hi: float) -> Contrast:
    return Contrast(name="", value=(lo + hi) / 2, lo=lo, hi=hi, bar=0.0, level=0.95, images=9)


YES, NO, MAYBE = at(0.1, 0.2), at(-0.2, -0.1), at(-0.1, 0.1)


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([[YES, YES]], REPRODUCED),
        ([[YES, MAYBE]], UNDECIDED),
        ([[MAYBE, NO]], NOT_REPRODUCED),
        ([[NO], [YES]], REPRODUCED),
        ([[NO], [MAYBE]], UNDECIDED),
        ([[NO], [NO, YES]], NOT_REPRODUCED),
        ([], UNDECIDED),
    ],
)
def test_all_of_a_group_and_any_group(groups: Sequence[Sequence[Contrast]], expected: str) -> None:
    assert verdict([list(g) for g in groups]) == expected


def test_the_bar_itself_decides_nothing() -> None:
    assert at(0.0, 0.2).verdict == UNDECIDED and at(-0.2, 0.0).verdict == UNDECIDED


def test_a_ratio_is_of_means_not_a_mean_of_ratios() -> None:
    a = {str(i): (100.0 * (i + 1), 1) for i in range(10)}
    b = {str(i): (10.0, 1) for i in range(10)}
    ratio: Callable[..., np.ndarray] = lambda x, y: y / x  # noqa: E731
    assert contrast("r", [a, b], ratio).value == pytest.approx(10 / 550)
