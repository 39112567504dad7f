"""The hardening table for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hardening_jobs import ATTACKS, LEVEL, UNDEFENDED
from hardening_rows import CLEAN, FEW, KINDS, MISSING, POINTS, SHARE, strongest

ASKED = [(how, kind) for how in ("static", "adaptive") for kind in KINDS]


def markdown(table: Sequence[dict[str, Any]], missing: Sequence[str], told: str) -> str:
    """For people."""
    lines = [
        f"{told} Mean IoU with the annotation [95 % interval over images], eps {LEVEL}/255; images: those attacked "
        "adaptively, clean and static being on all; gain and change against "
        f"the undefended model, paired. Claim: gain of at least {POINTS * 100:.0f} points or {SHARE:.0%}, clean change "
        f"of at least {-CLEAN * 100:.0f} points; held under static / adaptive / clean.", "",
        "| model | method | numbers | min | clean | change | static | gain | adaptive | gain | images | claim held |",
        "|---" * 12 + "|",
    ]  # fmt: skip
    for r in table:
        first = r["variant"] == UNDEFENDED
        verdicts = "" if first else " / ".join(r[f"{k}_verdict"] for k in ("static", "adaptive", "clean"))
        cells = [r["model"], r["variant"], f"{r['numbers']:,}" if r["numbers"] else "",
                 "" if first else f"{r['minutes']:.0f}", _span(r["clean"])]  # fmt: skip
        cells += ["" if first else _span(r["clean_change"], sign="+")]
        for how in ("static", "adaptive"):
            gain = "" if first or not r[how] else _span(r[f"{how}_gain"], sign="+")
            cells += [_span(r[how]) if r[how] else MISSING, gain]
        images = str(r["adaptive"]["images"]) if r["adaptive"] else "0"
        lines.append("| " + " | ".join([*cells, images, verdicts]) + " |")
    lines += ["", "Gain by prompts (undefended: what is left):", "",
              "| model | method | " + " | ".join(f"{h}, {k}" for h, k in ASKED) + " |",
              "|---" * (len(ASKED) + 2) + "|"]  # fmt: skip
    for r in table:
        what, sign = ("levels", "") if r["variant"] == UNDEFENDED else ("kinds", "+")
        found = [r[f"{how}_{what}"].get(kind) for how, kind in ASKED]
        spans = ["" if f is None else _span(f, sign=sign) for f in found]
        lines.append("| " + " | ".join([r["model"], r["variant"], *spans]) + " |")
    for how in ("static", "adaptive"):
        names = [a for a in ATTACKS if any(a in r["attacks"][how] for r in table)]
        lines += ["", f"{how.capitalize()}, attack by attack:", "", "| model | method | " + " | ".join(names) + " |",
                  "|---" * (len(names) + 2) + "|"]  # fmt: skip
        for r in table:
            found = [r["attacks"][how].get(a) for a in names]
            if not any(found):
                continue  # said above
            lines.append(
                "| " + " | ".join([r["model"], r["variant"], *("" if f is None else _span(f) for f in found)]) + " |"
            )
    for model in dict.fromkeys(r["model"] for r in table):
        best = strongest(table, model)
        said = (
            f"`{best['variant']}` ({best['numbers']:,} numbers, adaptive gain {_span(best['adaptive_gain'], sign='+')})"
            if best
            else "none of those tried"
        )
        lines += ["", f"{model}: the strongest variant of at most {FEW:.0%} of the parameters that holds: {said}."]
    deltas = [r["delta"] for r in table if r.get("delta") is not None]
    if deltas:
        lines += ["", f"Delta on a freshly loaded model against the saved folder, weights and answers equal in every "
                  f"bit: {sum(deltas)} of {len(deltas)}."]  # fmt: skip
    if missing:
        lines += ["", "Not run: " + "; ".join(missing) + "."]
    return "\n".join(lines)


def _span(found: dict[str, Any], sign: str = "") -> str:
    ends = "" if found["lo"] is None else f" [{found['lo']:{sign}.3f}, {found['hi']:{sign}.3f}]"
    return f"{found['value']:{sign}.3f}{ends}"
