"""Charts as inline SVG: curves with interval bands, and paired differences. Colours come from the page's custom
properties (classes, currentColor), so light and dark need one drawing.

Every function returns finished SVG markup in which all text from outside has been escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 440, 300
LEFT, RIGHT, TOP, BOTTOM = 40, 78, 14, 42


@dataclass(frozen=True, kw_only=True)
class Point:
    """One measured mean at x, with its interval."""

    x: float
    y: float
    lo: float
    hi: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One attack. `lead` draws it in the accent colour; the others stay grey and are told apart by their dashes."""

    name: str
    points: tuple[Point, ...]
    lead: bool = False


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One paired contrast with its interval; `text` is printed at its right end."""

    name: str
    value: float
    lo: float
    hi: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Place:
    """One entry of a ranking: its mean with the interval, the clean mean above it, `text` at the right end."""

    name: str
    value: float
    lo: float
    hi: float
    clean: float | None
    text: str
    lead: bool = False


@dataclass(frozen=True, kw_only=True)
class Dots:
    """A row of dots on a common axis; `lead` draws it in the accent colour."""

    name: str
    values: tuple[float, ...]
    lead: bool = False


def curves_svg(curves: Sequence[Curve], *, title: str, x_label: str) -> str:
    """mIoU (0 to 1, always the whole axis) against the budget."""
    points = [p for c in curves for p in c.points]
    top_x = max((p.x for p in points), default=1.0) or 1.0
    plot_w, plot_h = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + plot_w * x / top_x, TOP + plot_h * (1 - min(1.0, max(0.0, y)))

    out = [_open(WIDTH, HEIGHT, title)]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = at(0, tick)[1]
        out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    last = -99.0
    for x, label in sorted({p.x: p.label for p in points}.items()):
        px = at(x, 0)[0]
        if px - last >= 22:
            out.append(
                f'<text class="tick" x="{px:.1f}" y="{HEIGHT - BOTTOM + 19}" text-anchor="middle">'
                f"{escape(label)}</text>"
            )
            last = px
    out.append(
        f'<text class="axis" x="{LEFT + plot_w / 2}" y="{HEIGHT - 5}" text-anchor="middle">{escape(x_label)}</text>'
    )
    ends = _spread([(at(c.points[-1].x, c.points[-1].y)[1], i) for i, c in enumerate(curves) if c.points])
    for i, curve in sorted(enumerate(curves), key=lambda ic: ic[1].lead):
        if curve.points:
            out.append(
                _curve(curve, i, [(*at(p.x, p.y), at(0, p.lo)[1], at(0, p.hi)[1]) for p in curve.points], ends[i])
            )
    return "".join([*out, "</svg>"])


def small_svg(curves: Sequence[Curve], *, title: str, last: int) -> str:
    """One of many small charts side by side: mIoU (0 to 1) over whole numbers 0 to `last`."""
    width, height, left, right, top, bottom = 220, 150, 24, 42, 8, 20
    plot_w, plot_h = width - left - right, height - top - bottom

    def at(x: float, y: float) -> tuple[float, float]:
        return left + plot_w * x / last, top + plot_h * (1 - min(1.0, max(0.0, y)))

    out = [_open(width, height, title)]
    for tick in (0.0, 0.5, 1.0):
        y = at(0, tick)[1]
        out.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text class="tick" x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for x in range(last + 1):
        out.append(f'<text class="tick" x="{at(x, 0)[0]:.1f}" y="{height - 4}" text-anchor="middle">{x}</text>')
    # A label stands beside its last dot, which may lie anywhere; two at one end must not print over each other.
    ends = _spread([(at(0, c.points[-1].y)[1], i) for i, c in enumerate(curves) if c.points], gap=12, floor=at(0, 0)[1])
    for i, curve in sorted(enumerate(curves), key=lambda ic: ic[1].lead):
        if curve.points:
            xy = [(*at(p.x, p.y), at(0, p.lo)[1], at(0, p.hi)[1]) for p in curve.points]
            out.append(_curve(curve, i, xy, ends[i], end=max(x for x, *_ in xy) + 7, radius=2.5))
    return "".join([*out, "</svg>"])


def differences_svg(items: Sequence[Difference], *, title: str, left: str, right: str) -> str:
    """One line each: a dot, its interval, and zero as the line that decides. left / right say what the sides mean."""
    row, top, name_w, text_w = 27, 30, 124, 126
    height = top + row * len(items)
    reach = max([0.05, *(max(abs(d.lo), abs(d.hi)) for d in items)]) * 1.05
    x0, x1 = name_w, WIDTH - text_w

    def at(v: float) -> float:
        return x0 + (x1 - x0) * (v + reach) / (2 * reach)

    out = [_open(WIDTH, height, title)]
    out.append(f'<line class="zero" x1="{at(0):.1f}" x2="{at(0):.1f}" y1="0" y2="{height}"/>')
    out.append(f'<text class="tick" x="{at(0) - 8:.1f}" y="11" text-anchor="end">{escape(left)}</text>')
    out.append(f'<text class="tick" x="{at(0) + 8:.1f}" y="11">{escape(right)}</text>')
    for i, d in enumerate(items):
        y = top + row * i + row / 2
        clear = "clear" if d.lo > 0 or d.hi < 0 else "unclear"
        out.append(f'<text class="name" x="0" y="{y + 4:.1f}">{escape(d.name)}</text>')
        out.append(f'<g class="difference {clear}"><line x1="{at(d.lo):.1f}" x2="{at(d.hi):.1f}" y1="{y}" y2="{y}"/>')
        out.append(f'<circle cx="{at(d.value):.1f}" cy="{y}" r="4.5"/></g>')
        out.append(f'<text class="value" x="{WIDTH}" y="{y + 4:.1f}" text-anchor="end">{escape(d.text)}</text>')
    return "".join([*out, "</svg>"])


def places_svg(items: Sequence[Place], *, title: str) -> str:
    """One line each on an axis from 0 to 1: a full dot with its interval, an empty one for the clean mean."""
    row, name_w, text_w, foot = 30, 146, 104, 24
    width, height = WIDTH + 60, row * len(items) + foot
    x0, x1 = name_w, width - text_w

    def at(v: float) -> float:
        return x0 + (x1 - x0) * min(1.0, max(0.0, v))

    out = [_open(width, height, title)]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = at(tick)
        out.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - foot}"/>')
        out.append(f'<text class="tick" x="{x:.1f}" y="{height - 7}" text-anchor="middle">{tick:g}</text>')
    for i, p in enumerate(items):
        y = row * i + row / 2
        out.append(f'<text class="name" x="0" y="{y + 4:.1f}">{escape(_short(p.name))}</text>')
        out.append(f'<g class="difference {"clear" if p.lead else "unclear"}">')
        if p.clean is not None:
            out.append(f'<circle cx="{at(p.clean):.1f}" cy="{y}" r="4" class="hollow"/>')
        out.append(f'<line x1="{at(p.lo):.1f}" x2="{at(p.hi):.1f}" y1="{y}" y2="{y}"/>')
        out.append(f'<circle cx="{at(p.value):.1f}" cy="{y}" r="4.5"/></g>')
        out.append(f'<text class="value" x="{width}" y="{y + 4:.1f}" text-anchor="end">{escape(p.text)}</text>')
    return "".join([*out, "</svg>"])


def _short(name: str, most: int = 23) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}\N{HORIZONTAL ELLIPSIS}"


def dots_svg(rows: Sequence[Dots], *, bar: float, title: str) -> str:
    """Every value a dot, from -1 (less is drawn there) to 1, dots that would hide each other piled; a line at `bar`."""
    name_w, row, top = 124, 66, 22
    height = top + row * len(rows) + 24

    def at(v: float) -> float:
        return name_w + (WIDTH - 12 - name_w) * (min(1.0, max(-1.0, v)) + 1) / 2

    out = [_open(WIDTH, height, title)]
    for tick in (-1.0, -0.5, 0.0, 0.5, 1.0):
        x = at(tick)
        out.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{height - 24}"/>')
        out.append(f'<text class="tick" x="{x:.1f}" y="{height - 8}" text-anchor="middle">{tick:g}</text>')
    out.append(f'<line class="zero" x1="{at(bar):.1f}" x2="{at(bar):.1f}" y1="{top - 6}" y2="{height - 24}"/>')
    out.append(f'<text class="tick" x="{at(bar):.1f}" y="11" text-anchor="middle">bar {bar:.2f}</text>')
    for i, dots in enumerate(rows):
        base = top + row * (i + 1) - 8
        out.append(f'<text class="name" x="0" y="{base:.1f}">{escape(dots.name)}</text>')
        out.append(f'<g class="difference {"clear" if dots.lead else "unclear"}">')
        piles: dict[int, int] = {}
        for value in sorted(dots.values):
            place = round(at(value) / 5)
            piles[place] = piles.get(place, 0) + 1
            y = base - 3 - min(5.0, 48 / max(1, len(dots.values))) * (piles[place] - 1)
            out.append(f'<circle cx="{place * 5}" cy="{y:.1f}" r="2.5"><title>{value:.3f}</title></circle>')
        out.append("</g>")
    return "".join([*out, "</svg>"])


def _open(width: int, height: int, title: str) -> str:
    name = escape(title, quote=True)
    return f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{name}"><title>{name}</title>'


def _curve(
    curve: Curve,
    index: int,
    xy: Sequence[tuple[float, float, float, float]],
    label_y: float,
    *,
    end: float = WIDTH - RIGHT + 10,
    radius: float = 3.5,
) -> str:
    upper = [f"{x:.1f},{hi:.1f}" for x, _, _, hi in xy]
    lower = [f"{x:.1f},{lo:.1f}" for x, _, lo, _ in reversed(xy)]
    dash = "" if curve.lead else f' stroke-dasharray="{("6 3", "2 3", "9 3 2 3", "1 5")[index % 4]}"'
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in xy)
    marks = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}"><title>'
        + escape(f"{curve.name} {p.label}: {p.y:.3f} [{p.lo:.3f}, {p.hi:.3f}]")
        + "</title></circle>"
        for (x, y, _, _), p in zip(xy, curve.points, strict=True)
    )
    return (
        f'<g class="curve{" lead" if curve.lead else ""}"><polygon points="{" ".join(upper + lower)}"/>'
        f'<polyline points="{line}"{dash}/>{marks}'
        f'<text x="{end:g}" y="{label_y + 4:.1f}">{escape(curve.name)}</text></g>'
    )


def _spread(ends: list[tuple[float, int]], gap: float = 15, floor: float = HEIGHT - BOTTOM) -> dict[int, float]:
    """Push labels apart that would print over each other; returns y by index."""
    placed: dict[int, float] = {}
    last = -1e9
    for y, i in sorted(ends):
        last = max(y, last + gap)
        placed[i] = last
    over = last - floor
    return {i: y - max(0.0, over) for i, y in placed.items()}
