"""Conditions: a few photographs under every corruption of the run, each with the mask that the model found and its IoU,
and how the IoU of each corruption goes with severity.

Shown for each model: the photograph it loses most on, the typical one and the one that holds best, by the mean IoU
lost over all corruptions, and of each the largest object whose clean mask is decent.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from markupsafe import Markup

from redsam.report.cases import DECENT, inside, prompt_shape, sized_mask
from redsam.report.chart import Curve, Point, small_svg
from redsam.report.pictures import edge_uri, photo_uri, read_rgb
from redsam.report.reading import GROUND_TRUTH, Row, Run, located, number
from redsam.report.verdict import MIXED, Verdict, n_text, plural

ROLES = ("loses most", "typical", "holds best")
SIDE = 360  # of a tile's picture
MOST_TILES = 150  # of one model: a page of this many stays a few megabytes


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One picture: photo and mask are data URIs; note says why there is no number."""

    name: str
    severity: int
    photo: str
    mask: str | None
    iou: float | None
    note: str


@dataclass(frozen=True, kw_only=True)
class Grid:
    """One photograph of one model. graded: conditions measured at several severities, a tile or None for each of
    `severities`; single: tiles of the others."""

    role: str
    model: str
    sample: str
    prompt: str
    reference: str
    width: int
    height: int
    clean: Tile
    points: tuple[tuple[float, float, bool], ...]
    box: tuple[float, float, float, float] | None
    severities: tuple[int, ...]
    graded: tuple[tuple[str, tuple[Tile | None, ...]], ...]
    single: tuple[Tile, ...]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One condition: clean at zero, then the severities, a curve for each prompt kind."""

    heading: str
    svg: Markup


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What the page shows of corruptions."""

    charts: tuple[Chart, ...]
    caption: str
    grids: tuple[Grid, ...]


Found = dict[str, dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]]]  # cell -> sample#prompt -> (record, prompt)


def conditions(run: Run, judged: Sequence[Verdict]) -> Conditions | None:
    """Charts and grids of every model; None where nothing was corrupted."""
    rows = [r for r in run.rows if r.severity is not None and r.adv.value is not None and r.prompt != MIXED]
    if not rows:
        return None
    reference = GROUND_TRUTH if any(r.reference == GROUND_TRUTH for r in rows) else rows[0].reference
    rows = [r for r in rows if r.reference == reference]
    models = list(dict.fromkeys(r.model for r in rows))
    kinds = list(dict.fromkeys(plural(r.prompt) for r in rows))
    caption = (
        f"mIoU against {reference}, from the clean photograph (0) to severity 5, {' and '.join(kinds)}; bands are 95 % "
        f"intervals, {n_text(rows[0])}."
    )
    grids = [grid for model in models for grid in _grids(run, _shown([r for r in rows if r.model == model], judged))]
    return Conditions(charts=tuple(_charts(rows, several=len(models) > 1)), caption=caption, grids=tuple(grids))


def _shown(rows: Sequence[Row], judged: Sequence[Verdict]) -> list[Row]:
    """One model's rows of one prompt kind and protocol: that of the verdict where it was corrupted, else the first."""
    known = [(r.prompt, r.protocol) for r in rows]
    spoken = [(h.prompt, h.protocol) for v in judged if v.model == rows[0].model for h in v.headline]
    wanted = next((key for key in spoken if key in known), known[0])
    return [r for r in rows if (r.prompt, r.protocol) == wanted]


def _charts(rows: Sequence[Row], *, several: bool) -> list[Chart]:
    charts = []
    for model, name in dict.fromkeys((r.model, r.label) for r in rows):
        mine = [r for r in rows if (r.model, r.label) == (model, name)]
        curves = [_curve([r for r in mine if r.prompt == kind], kind) for kind in dict.fromkeys(r.prompt for r in mine)]
        spoken = "; ".join(f"{c.name} " + ", ".join(f"{p.y:.2f} at {p.label}" for p in c.points) for c in curves)
        heading = f"{model}, {name}" if several else name
        svg = small_svg(curves, title=f"mIoU over the severity of {heading}: {spoken}", last=5)
        charts.append(Chart(heading=heading, svg=Markup(svg)))
    return charts


def _curve(rows: Sequence[Row], kind: str) -> Curve:
    """The clean mean at 0, then one dot a severity; where several protocols ask so, the first."""
    mine = sorted((r for r in rows if r.protocol == rows[0].protocol), key=lambda r: r.severity or 0)
    dots = [(0, mine[0].clean), *((r.severity or 0, r.adv) for r in mine)]
    points = [
        Point(x=x, y=n.value, lo=n.value if n.lo is None else n.lo, hi=n.value if n.hi is None else n.hi, label=str(x))
        for x, n in dots
        if n.value is not None
    ]
    return Curve(name=kind, points=tuple(points), lead=kind == "box")


def _grids(run: Run, rows: Sequence[Row]) -> list[Grid]:
    """Up to three photographs of one model."""
    field = "iou_adv_gt" if rows[0].reference == GROUND_TRUTH else "iou_adv_clean"
    known: dict[str, _Lost] = {}
    for row in rows:
        cell: dict[str, tuple[_Lost, float | None]] = {}
        for key, record, prompt in _prompts(run, row):
            sample, worth = str(record.get("sample")), _worth(prompt, field)
            cell[key] = _Lost(sample, _before(prompt, field), worth, []), number(prompt.get(field))
        for key, (one, after) in cell.items():
            drops = known[key].drops if key in known else []
            known[key] = one._replace(drops=drops)
            if after is not None:
                drops.append((one.before or 0.0) - after)
    picked = _pick(known)
    tiles = len({(r.label, r.severity) for r in rows}) + 1
    picked = picked[: max(1, MOST_TILES // tiles)]
    keys = {key for _, key in picked}
    samples = {known[key].sample for key in keys}
    found: Found = {
        row.cell: {key: (r, p) for key, r, p in _prompts(run, row, naming=samples) if key in keys} for row in rows
    }
    grids = [_grid(run, rows, found, key, field, role) for role, key in picked]
    return [grid for grid in grids if grid is not None]


class _Lost(NamedTuple):
    """What decides whether a prompt is shown. drops: its loss in each cell."""

    sample: str
    before: float | None
    worth: tuple[bool, float]
    drops: list[float]


def _prompts(
    run: Run, row: Row, naming: Collection[str] = ()
) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """sample#prompt, record and prompt of the row's measured prompts."""
    for _, r in located(run, row.cell, naming=naming):
        for p in (r.get("prompts") or ()) if r.get("status") == "ok" else ():
            if isinstance(p, dict) and str(p.get("kind", row.prompt)) == row.prompt:
                yield f"{r.get('sample')}#{p.get('prompt')}", r, p


def _pick(known: Mapping[str, _Lost]) -> list[tuple[str, str]]:
    """(role, sample#prompt), one a photograph."""
    best: dict[str, str] = {}
    for key, one in known.items():
        if one.sample not in best or one.worth > known[best[one.sample]].worth:
            best[one.sample] = key
    lost = {key: statistics.fmean(known[key].drops) for key in best.values() if known[key].drops}
    order = sorted(lost, key=lambda key: -lost[key])
    if len(order) < len(ROLES):
        return list(zip(ROLES, order, strict=False))
    return list(zip(ROLES, (order[0], order[len(order) // 2], order[-1]), strict=True))


def _before(prompt: Mapping[str, Any], field: str) -> float | None:
    return number(prompt.get("iou_clean_gt")) if field == "iou_adv_gt" else 1.0


def _worth(prompt: Mapping[str, Any], field: str) -> tuple[bool, float]:
    return (_before(prompt, field) or 0.0) >= DECENT, number(prompt.get("area")) or 0.0


def _grid(run: Run, rows: Sequence[Row], found: Found, key: str, field: str, role: str) -> Grid | None:
    made: dict[str, dict[int, Tile]] = {}
    first: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None
    for row in rows:
        pair = found[row.cell].get(key)
        tile = None if pair is None else _tile(run, row, *pair, field)
        if tile is not None and pair is not None:
            made.setdefault(row.label, {})[tile.severity] = tile
            first = first or pair
    if first is None:
        return None
    record, prompt = first
    try:
        path = inside(run.out, [record.get("clean_image"), f"images/{record.get('sample')}.png"])
        pixels = None if path is None else read_rgb(path)
    except (OSError, ValueError):
        pixels = None
    if pixels is None:
        return None
    height, width = pixels.shape[:2]
    mask = sized_mask(prompt.get("rle_clean"), (height, width))
    clean = Tile(
        name="clean", severity=0, photo=photo_uri(pixels, side=SIDE, quality=76),
        mask=None if mask is None else edge_uri(mask, side=SIDE), iou=_before(prompt, field), note="",
    )  # fmt: skip
    # Where a corruption moved pixels, the clean prompt is another one.
    given = prompt.get("geometry_given") or prompt.get("geometry")
    points, box = prompt_shape(given if isinstance(given, dict) else {})
    levels = sorted({s for by in made.values() if len(by) > 1 for s in by})
    return Grid(
        role=role, model=rows[0].model, sample=str(record.get("sample")), prompt=rows[0].prompt,
        reference=rows[0].reference, width=width, height=height, clean=clean, points=points, box=box,
        severities=tuple(levels),
        graded=tuple((name, tuple(map(by.get, levels))) for name, by in made.items() if len(by) > 1),
        single=tuple(next(iter(by.values())) for by in made.values() if len(by) == 1),
    )  # fmt: skip


def _tile(run: Run, row: Row, record: Mapping[str, Any], prompt: Mapping[str, Any], field: str) -> Tile | None:
    """None where the picture cannot be read."""
    image = prompt.get("image") or record.get("image")
    path = inside(run.out, [f"records/{row.cell}/{image}", image])
    if path is None:
        return None
    try:
        pixels = read_rgb(path)
    except (OSError, ValueError):
        return None
    mask = sized_mask(prompt.get("rle_adv"), (pixels.shape[0], pixels.shape[1]))
    return Tile(
        name=row.label, severity=row.severity or 0, photo=photo_uri(pixels, side=SIDE, quality=70),
        mask=None if mask is None else edge_uri(mask, side=SIDE), iou=number(prompt.get(field)),
        note=str(prompt.get("gone") or ""),
    )  # fmt: skip
