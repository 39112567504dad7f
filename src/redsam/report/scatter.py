"""Robust against clean IoU, one dot for each defence, as an SVG: what a defence costs and what it is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Span = tuple[float, float, float]  # value, lower and upper end

PLOT, LEFT, TOP, BOTTOM, KEY = 340, 44, 14, 44, 330
ROW = 17  # of the key


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One defence. adaptive: what an attacker who knows it leaves, None where nobody tried; static: what images that do
    not know it leave. lead: the model without a defence, drawn in the accent colour."""

    name: str
    clean: Span
    adaptive: Span | None
    static: Span | None
    lead: bool = False


def scatter_svg(marks: Sequence[Mark], *, title: str) -> str:
    """Both axes mIoU from 0 to 1 with 95 % intervals. A full dot is adaptive, an empty one static; the number beside a
    dot is that of its line in the key."""
    width = LEFT + PLOT + 24 + KEY
    height = max(TOP + PLOT + BOTTOM, TOP + ROW * (len(marks) + 3))
    name = escape(title, quote=True)
    out = [f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{name}"><title>{name}</title>']
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = _at(tick, tick)
        out.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + PLOT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{TOP + PLOT}"/>')
        out.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
        out.append(f'<text class="tick" x="{x:.1f}" y="{TOP + PLOT + 18}" text-anchor="middle">{tick:g}</text>')
    below = TOP + PLOT + 38
    out.append(f'<text class="axis" x="{LEFT + PLOT / 2}" y="{below}" text-anchor="middle">mIoU on clean images</text>')
    out.append(f'<text class="axis" x="{LEFT + 6}" y="{TOP + 14}">mIoU under attack</text>')
    for number, mark in enumerate(marks):
        for span, full in ((mark.static, False), (mark.adaptive, True)):
            if span is not None:
                out.append(_dot(number, mark, span, full=full))
    x = LEFT + PLOT + 24
    for number, mark in enumerate(marks):
        told = "" if mark.adaptive is not None else " (no adaptive number)"
        style = ' class="curve lead"' if mark.lead else ""
        line = f"{number} {mark.name}{told}"
        out.append(f'<g{style}><text x="{x}" y="{TOP + 12 + ROW * number}">{escape(line)}</text></g>')
    foot = TOP + 12 + ROW * (len(marks) + 1)
    out.append(f'<text class="tick" x="{x}" y="{foot}">full: the attacker knows the defence; empty: not</text>')
    return "".join([*out, "</svg>"])


def _at(clean: float, robust: float) -> tuple[float, float]:
    return LEFT + PLOT * min(1.0, max(0.0, clean)), TOP + PLOT * (1 - min(1.0, max(0.0, robust)))


def _dot(number: int, mark: Mark, span: Span, *, full: bool) -> str:
    (x, y), (left, low), (right, high) = (_at(c, r) for c, r in zip(mark.clean, span, strict=True))
    kind = "adaptive" if full else "static"
    told = escape(f"{mark.name}, {kind}: {span[0]:.3f} [{span[1]:.3f}, {span[2]:.3f}], clean {mark.clean[0]:.3f}")
    fill = "" if full else ' style="fill:var(--paper, #fff)"'
    dash = "" if full else ' stroke-dasharray="2 3"'
    return (
        f'<g class="curve{" lead" if mark.lead else ""}">'
        f'<line x1="{left:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke-width="1"{dash}/>'
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke-width="1"{dash}/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"{fill}><title>{told}</title></circle>'
        f'<text x="{x + 6:.1f}" y="{y - 5:.1f}">{number}</text></g>'
    )
