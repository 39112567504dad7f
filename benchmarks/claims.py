"""Published claims, and whether the records of the attack table bear them out: data and pure functions, no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evidence import (
    Bank,
    Contrast,
    Field,
    Groups,
    NotMeasured,
    Record,
    column,
    contrast,
    drop,
    find,
    minus,
    of,
    pooled,
    verdict,
)

from redsam.bench.statistics import LEVEL

SOURCE, LARGER, LARGEST = "lab-b", "lab-l", "lab-h"
BENCHMARK = ("attack-sam-k", "tap", "ilpd", "aa", "pata", "pata++", "uad")  # whose published rows weaken from b to h
SPLIT = ("uad", "aa", "attack-sam-k")  # whose published rows are split into points and boxes
NEAR_CLEAN = 0.90  # EBAD is published to leave about 0.96
FIGA_MARGIN, FIGA_SHARE = 0.05, 0.5  # IoU that FIGA may stay behind FGSM*; share of its pixels it must stay below
FIGA, ALL_PIXELS = "figa, k = ", "figa, k = all (FGSM*)"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """statement: as published. source: where it was found. deviation: what differs here. groups: the contrasts that
    decide. beside: more of them that do not."""

    id: str
    statement: str
    source: str
    deviation: str
    groups: Callable[[Bank], Groups]
    beside: Callable[[Bank], list[Contrast]] = lambda _: []


def judge(claim: Claim, bank: Bank) -> dict[str, Any]:
    """A claim as JSON: what was published, what was measured, the verdict. What is missing from the bank is said, and
    undecided."""
    out: dict[str, Any] = {k: getattr(claim, k) for k in ("id", "statement", "source", "deviation")}
    groups: Groups = []
    beside: list[Contrast] = []
    missing = None
    try:
        groups = claim.groups(bank)
        beside = claim.beside(bank)
    except NotMeasured as error:
        missing = f"not measured: {error}"
    return out | {
        "verdict": verdict(groups),
        "missing": missing,
        "groups": [[asdict(c) | {"verdict": c.verdict} for c in group] for group in groups],
        "beside": [asdict(c) | {"verdict": c.verdict} for c in beside],
    }


def transfer(bank: Bank, attack: str, victim: str = SOURCE) -> tuple[Record, ...]:
    """Records of the transfer table."""
    return find(bank, run="rga-transfer", attack=attack, victim=victim)


def below(bank: Bank, weaker: str, stronger: str) -> Contrast:
    """mIoU with ground truth on the source, all `uad` prompts: the weaker attack leaves more."""
    columns = [column(transfer(bank, a), of("iou_adv_gt")) for a in (weaker, stronger)]
    return contrast(f"mIoU, {weaker} minus {stronger}", columns, minus)


def order(bank: Bank) -> Groups:
    """RGA under UAD under AA."""
    return [[below(bank, "uad", "rga"), below(bank, "aa", "uad")]]


def features_beat_masks(bank: Bank) -> Groups:
    """PATA under Attack-SAM-K."""
    return [[below(bank, "attack-sam-k", "pata")]]


def weakening(bank: Bank, attacks: Sequence[str], near: str, far: str) -> Contrast:
    """Share of its own clean mIoU that a victim loses, the near one minus the far one, pooled over attacks."""
    columns = []
    for victim in (near, far):
        parts = [transfer(bank, attack, victim) for attack in attacks]
        columns += [pooled(parts, of("iou_clean_gt")), pooled(parts, of("iou_adv_gt"))]
    name = f"share of clean mIoU lost, {near} minus {far}" + (f", {attacks[0]}" if len(attacks) == 1 else "")
    return contrast(name, columns, lambda clean, adv, clean2, adv2: adv2 / clean2 - adv / clean)


def transfer_weakens(bank: Bank) -> Groups:
    """From b to l, from l to h."""
    return [[weakening(bank, BENCHMARK, SOURCE, LARGER), weakening(bank, BENCHMARK, LARGER, LARGEST)]]


def each_weakens(bank: Bank) -> list[Contrast]:
    """The same for every attack alone."""
    pairs = ((SOURCE, LARGER), (LARGER, LARGEST))
    return [weakening(bank, (attack,), *pair) for attack in BENCHMARK for pair in pairs]


def boxes_beat_points(bank: Bank) -> Groups:
    """Points lose more IoU than boxes under the same images."""

    def one(attack: str) -> Contrast:
        records = transfer(bank, attack)
        columns = [column(records, drop, kind) for kind in ("point", "box")]
        return contrast(f"mIoU lost by points minus lost by boxes, {attack}", columns, minus)

    return [[one(attack) for attack in SPLIT]]


def near_clean(bank: Bank, attack: str) -> Contrast:
    """IoU with the clean mask after a score attack."""
    records = find(bank, run="score", attack=attack, victim=SOURCE)
    name = f"IoU with the clean mask, {attack}"
    return contrast(name, [column(records, of("iou_adv_clean"))], lambda mean: mean, bar=NEAR_CLEAN)


def black_box_fails(bank: Bank) -> Groups:
    """EBAD and SimBA."""
    return [[near_clean(bank, "ebad"), near_clean(bank, "simba")]]


def few_pixels(bank: Bank) -> Groups:
    """For each k: IoU with the clean mask not far above FGSM*'s, and few of its pixels. Any k will do, so each is
    looked at on a level that allows for their number."""
    whole = find(bank, run="figa-sweep", attack=ALL_PIXELS)
    sweep = sorted({f.attack for f in bank if f.run == "figa-sweep" and f.attack.startswith(FIGA)} - {ALL_PIXELS})
    if not sweep:
        raise NotMeasured("figa-sweep with a k")
    level = 1 - (1 - LEVEL) / len(sweep)
    groups = []
    for name in sweep:
        some = find(bank, run="figa-sweep", attack=name)
        ious = [column(r, of("iou_adv_clean")) for r in (whole, some)]
        pixels = [column(r, of("l0")) for r in (whole, some)]
        groups.append([
            contrast(f"IoU with the clean mask, FGSM* minus {name}", ious, minus, bar=-FIGA_MARGIN, level=level),
            contrast(f"share of FGSM*'s modified pixels left alone, {name}", pixels, lambda a, b: 1 - b / a,
                     bar=1 - FIGA_SHARE, level=level),
        ])  # fmt: skip
    return groups


def map_matters(bank: Bank) -> Groups:
    """RGA whole against RGA without its map, on the source."""
    records = [find(bank, run="rga-ablation", attack=a, victim=SOURCE) for a in ("rga, no map", "rga")]
    columns = [column(r, of("iou_adv_gt")) for r in records]
    return [[contrast("mIoU, RGA without its map minus RGA", columns, minus)]]


def strangers(bank: Bank) -> list[Field]:
    """PGD on the source, crafted with one kind of prompt and asked with another."""
    fields = [f for f in bank if f.run == "cross-prompt-matrix" and f.victim == SOURCE]
    found = [f for f in fields if f.attack.startswith("pgd") and f.crafted != f.tested]
    if not found:
        raise NotMeasured("cross-prompt-matrix, pgd on prompts of another kind")
    return found


def unseen(bank: Bank, single: Sequence[Field]) -> Contrast:
    """mIoU with ground truth that these leave, minus what the cross-prompt attack leaves of the same prompts."""
    rivals = [
        find(bank, run="cross-prompt-matrix", attack="cross-prompt", victim=SOURCE, tested=f.tested) for f in single
    ]
    columns = [pooled(parts, of("iou_adv_gt")) for parts in ([f.records for f in single], rivals)]
    kinds = ", ".join(sorted({f.tested for f in single}))
    return contrast(f"mIoU asked with {kinds}, PGD made for another kind minus cross-prompt", columns, minus)


def cross_prompt_wins(bank: Bank) -> Groups:
    """Over all pairs of kinds."""
    return [[unseen(bank, strangers(bank))]]


def by_kind(bank: Bank) -> list[Contrast]:
    """For every kind of test prompt alone."""
    single = strangers(bank)
    return [unseen(bank, [f for f in single if f.tested == kind]) for kind in sorted({f.tested for f in single})]


LOGS = "UAD's official logs, 1000 SA-1B images, source SAM-B (github.com/jiahaolu97/anything-unsegmentable at 2dd65e0)"
RED = "Red-Teaming Segment Anything Model, 2024, arXiv 2404.02067, by a summary of it"
MODELS = "lab models and photographs of BSDS and COCO instead of SAM and SA-1B"
CLAIMS = (
    Claim(
        id="rga-uad-aa", statement="On the source RGA leaves less mIoU than UAD, and UAD less than AA (0.515, 0.611).",
        source=f"RGA, 2024, arXiv 2411.02974 (its abstract claims high success, its own row was not to be had); {LOGS}",
        deviation=f"{MODELS}; RGA's regions from a coarser grid and lower thresholds", groups=order,
    ),
    Claim(
        id="pata-attack-sam-k", statement="On the source PATA leaves less mIoU than Attack-SAM-K (0.614, 0.681).",
        source=LOGS, deviation=MODELS, groups=features_beat_masks,
    ),
    Claim(
        id="transfer-weakens", groups=transfer_weakens, beside=each_weakens, source=LOGS,
        statement="Attacks lose strength from SAM-B to SAM-L to SAM-H (UAD 0.515, 0.661, 0.690).",
        deviation=f"{MODELS}; the share of each victim's own clean mIoU that is lost, the seven attacks pooled",
    ),
    Claim(
        id="boxes-beat-points",
        statement="Boxes keep more mIoU than points under one image (UAD 0.747, 0.376; AA 0.796, 0.500; "
        "Attack-SAM-K 0.839, 0.585).",
        source=LOGS, deviation=f"{MODELS}; what is lost of each kind's own clean mIoU, not what is left",
        groups=boxes_beat_points,
    ),
    Claim(
        id="black-box-fails", statement="SimBA and EBAD fail: under EBAD IoU with the clean mask stays about 0.96.",
        source=RED, groups=black_box_fails, beside=lambda bank: [near_clean(bank, "square")],
        deviation=f"near is above {NEAR_CLEAN}; exact boxes for text prompts, lab models for SAM and the surrogates, "
        "fewer queries of SimBA, inside 8/255; Square, which the paper does not have, beside",
    ),
    Claim(
        id="figa-few-pixels", statement="FIGA does what FGSM* does and moves far fewer pixels.", source=RED,
        groups=few_pixels,
        deviation=f"for some k the IoU stays within {FIGA_MARGIN} of FGSM*'s with less than {FIGA_SHARE:.0%} of its "
        "pixels; exact boxes for text prompts",
    ),
    Claim(
        id="rga-map", statement="RGA without its region-guided map is weaker.", groups=map_matters,
        source="RGA, 2024, arXiv 2411.02974 (its ablation's numbers were not to be had)",
        deviation=f"{MODELS}; RGA's regions from a coarser grid and lower thresholds",
    ),
    Claim(
        id="cross-prompt", statement="The cross-prompt attack beats single-prompt attacks on kinds of prompt they were "
        "not made for.",
        source="Robust SAM, 2025, arXiv 2504.08906 (headline; its tables were not to be had)",
        deviation=f"{MODELS}; the attack is a reconstruction, and has seen points, boxes and masks itself",
        groups=cross_prompt_wins, beside=by_kind,
    ),
)  # fmt: skip
