"""Rows of the hardening table, from records alone: what each variant keeps, gains and costs, judged by intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from evidence import Bank, Column, Contrast, NotMeasured, alone, column, contrast, find, minus, of, pooled
from hardening_jobs import ATTACKS, UNDEFENDED, VARIANTS

POINTS, SHARE, CLEAN = 0.15, 0.15, 0.02  # what the claim asks for
FEW = 0.05  # share of the parameters up to which they are called few
KINDS = ("point", "box")
YES, NO, OPEN = "yes", "no", "open"
MISSING = "not attacked"  # by someone who knows it: said, since nothing follows from static images alone


def rows(fields: Bank, facts: dict[tuple[str, str], dict[str, Any]], models: Sequence[str]) -> list[dict[str, Any]]:
    """One for each model and variant that is measured, the undefended first."""
    out = []
    for model in models:
        variants = [UNDEFENDED, *(v for v in VARIANTS if (model, v) in facts)]
        for variant in variants:
            try:
                out.append(_row(fields, model, variant, facts.get((model, variant), {})))
            except NotMeasured as error:
                print(f"{model} {variant}: not measured ({error})")
    return out


def _row(fields: Bank, model: str, variant: str, told: dict[str, Any]) -> dict[str, Any]:
    clean, clean_before = (_clean(fields, model, v) for v in (variant, UNDEFENDED))
    row: dict[str, Any] = {
        "model": model, "variant": variant, "numbers": told.get("numbers", 0), "parameters": told.get("parameters", 0),
        "steps": told.get("steps"), "minutes": told.get("minutes"), "best": told.get("best"),
        "clean": _told(contrast("clean", [clean], alone)),
        "clean_change": _told(contrast("clean change", [clean, clean_before], minus)),
        "attacks": {},
    }  # fmt: skip
    for how in ("static", "adaptive"):
        known = [a for a in ATTACKS if _has(fields, model, a, UNDEFENDED, how)]
        lacking = [a for a in known if not _has(fields, model, a, variant, how)]
        if lacking or not known:  # a mean over fewer attacks than beside it would be of another thing
            if how == "static":
                raise NotMeasured(f"{how}: {', '.join(lacking) or 'no attack'}")
            row |= {how: None, f"{how}_gain": None, f"{how}_verdict": MISSING}
            row["attacks"][how], row[f"{how}_kinds"], row[f"{how}_levels"] = {}, {}, {}
            continue
        mine, before = ([_records(fields, model, a, v, how) for a in known] for v in (variant, UNDEFENDED))
        row["attacks"][how] = {a: _told(contrast(a, [column(r, of("iou_adv_gt"))], alone))
                               for a, r in zip(known, mine, strict=True)}  # fmt: skip
        both = [pooled(mine, of("iou_adv_gt")), pooled(before, of("iou_adv_gt"))]
        gain, old = contrast(f"{how} gain", both, minus), contrast(f"{how} before", both[1:], alone)
        row[f"{how}_kinds"], row[f"{how}_levels"] = _by_kind(how, mine, before)
        row[how] = _told(contrast(how, both[:1], alone))
        row[f"{how}_gain"] = _told(gain)
        row[f"{how}_bar"] = bar = min(POINTS, SHARE * old.value)
        row[f"{how}_verdict"] = judged(gain, lambda v, bar=bar: v >= bar)
    row["clean_verdict"] = judged(contrast("clean change", [clean, clean_before], minus), lambda v: v >= -CLEAN)
    return row


def _by_kind(how: str, mine: Any, before: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Gain, and what is kept, by the kind of the prompts."""
    gains, levels = {}, {}
    for kind in KINDS:
        if any(p["kind"] == kind for records in mine for r in records for p in r["prompts"]):
            sides = [pooled(side, of("iou_adv_gt"), kind) for side in (mine, before)]
            gains[kind] = _told(contrast(f"{how} {kind}", sides, minus))
            levels[kind] = _told(contrast(f"{how} {kind} alone", sides[:1], alone))
    return gains, levels


def beside(table: Sequence[dict[str, Any]], earlier: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A table and those rows of an earlier one that it lacks, in the order of VARIANTS; a row measured anew counts."""
    merged = {(r["model"], r["variant"]): r for r in (*earlier, *table)}
    models = list(dict.fromkeys(model for model, _ in merged))
    order = [(m, v) for m in models for v in (UNDEFENDED, *VARIANTS)]
    return [merged[key] for key in order if key in merged]


def judged(found: Contrast, reached: Callable[[float], bool]) -> str:
    """By the interval; "open" where it holds both answers or there are too few images for one."""
    if found.lo is None or found.hi is None:
        return OPEN
    ends = {reached(found.lo), reached(found.hi)}
    return OPEN if len(ends) == 2 else YES if ends == {True} else NO


def _clean(fields: Bank, model: str, variant: str) -> Column:
    return column(find(fields, run=model, attack="clean", victim=variant), of("iou_clean_gt"))


def _records(fields: Bank, model: str, name: str, variant: str, how: str) -> Any:
    return find(fields, run=model, attack=name, victim=variant, crafted=how)


def _has(fields: Bank, *asked: str) -> bool:
    try:
        return bool(_records(fields, *asked))
    except NotMeasured:
        return False


def _told(found: Contrast) -> dict[str, Any]:
    return {"value": found.value, "lo": found.lo, "hi": found.hi, "images": found.images}


def strongest(table: Sequence[dict[str, Any]], model: str) -> dict[str, Any] | None:
    """Of the variants with few parameters the one with the largest adaptive gain that misses none of the three: no
    verdict is "no", and every value reaches its bar."""
    held = [
        r for r in table
        if r["model"] == model and r["numbers"] and r["numbers"] <= FEW * r["parameters"]
        and not {NO, MISSING} & {r["static_verdict"], r["adaptive_verdict"], r["clean_verdict"]}
        and all(r[f"{how}_gain"]["value"] >= r[f"{how}_bar"] for how in ("static", "adaptive"))
        and r["clean_change"]["value"] >= -CLEAN
    ]  # fmt: skip
    return max(held, key=lambda r: r["adaptive_gain"]["value"], default=None)
