"""What a visitor sees, as HTML: the stage to click on, one lane for each attack, one line of words.

Everything from outside is escaped; pictures are data URIs of reduced copies, the files to download are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib import resources

from torch import Tensor

from redsam.app.live import Moment
from redsam.app.play import NONE, Screen
from redsam.app.session import Session, photographs
from redsam.prompts import Prompt
from redsam.report.pictures import amplified, mask_uri, photo_uri, read_rgb
from redsam.types import to_uint8

SIDE = 420  # of a picture in a lane
CURVE = (300, 84)


def asset(name: str) -> str:
    """style.css or stage.js."""
    return resources.files("redsam.app").joinpath("assets", name).read_text(encoding="utf-8")


def stage(session: Session) -> str:
    """The photograph to click or to drag a box on, with the prompt drawn."""
    if session.image is None:
        return '<div class="rs-empty">Choose a photograph below, or upload your own.</div>'
    height, width = session.image.shape[1:]
    return (
        f'<div class="rs-stage" data-w="{width}" data-h="{height}" style="aspect-ratio:{width}/{height};'
        f'--most:{width / height:.4f}" role="img" aria-label="{escape(session.name, quote=True)}: '
        'click an object, or drag a box around it">'
        f'<img src="{_photo(session.image)}" alt="" draggable="false">'
        f"{_marks(session.prompt, width, height)}</div>"
    )


def strip() -> str:
    """The bundled photographs to choose from."""
    return (
        '<div class="rs-strip" role="group" aria-label="Photographs">'
        + "".join(
            f'<button type="button" class="rs-thumb" data-photo="{escape(name, quote=True)}" title="{escape(name)}">'
            f'<img src="{photo_uri(read_rgb(path), side=160)}" alt="{escape(name)}"></button>'
            for name, path in photographs().items()
        )
        + "</div>"
    )


def lanes(screen: Screen, prompt: Prompt | None) -> str:
    """One lane for each attack, or a hint where nothing has run."""
    if not screen.lanes:
        return ""
    several = len(screen.lanes) > 1
    return f'<div class="rs-lanes">{"".join(_lane(d, m, prompt, several) for d, m in screen.lanes)}</div>'


def line(text: str, *, wrong: bool = False, busy: bool = False) -> str:
    """The one line under the controls; an error is announced to screen readers at once."""
    kind = "rs-wrong" if wrong else "rs-busy" if busy else ""
    role = "alert" if wrong else "status"
    return f'<p class="rs-line {kind}" role="{role}">{escape(" ".join(text.split()))}</p>'


def curve_svg(curve: Sequence[tuple[int, float]], steps: int) -> str:
    """IoU over steps, both axes whole: 0 to 1, and from the first step to the last."""
    width, height = CURVE
    left, right, top, bottom = 4, 34, 8, 8
    most = max(1, steps)

    def at(step: int, value: float) -> tuple[float, float]:
        return left + (width - left - right) * step / most, top + (height - top - bottom) * (1 - value)

    points = [at(step, value) for step, value in curve]
    x, y = points[-1]
    spoken = f"IoU over {steps} steps: {', '.join(f'{value:.2f}' for _, value in curve)}"
    grid = "".join(
        f'<line class="rs-grid" x1="{left}" x2="{width - right}" y1="{at(0, v)[1]:.1f}" y2="{at(0, v)[1]:.1f}"/>'
        for v in (0.0, 0.5, 1.0)
    )
    return (
        f'<svg class="rs-curve" viewBox="0 0 {width} {height}" role="img" aria-label="{spoken}">{grid}'
        f'<polyline points="{" ".join(f"{px:.1f},{py:.1f}" for px, py in points)}"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
        f'<text x="{x + 8:.1f}" y="{y + 4:.1f}">{curve[-1][1]:.2f}</text></svg>'
    )


def _lane(defense: str, moment: Moment, prompt: Prompt | None, several: bool) -> str:
    height, width = moment.clean.shape[:2]
    difference, factor = amplified(moment.clean, moment.adversarial)
    changed = "" if moment.step == 0 else f" × {factor}"
    name = "no defence" if defense == NONE else defense
    head = f"<h3>{escape(name)}</h3>" if several else ""
    marks = _marks(prompt, width, height)
    pictures = (
        ("Before", photo_uri(moment.clean, side=SIDE), moment.before, marks),
        ("After", photo_uri(moment.adversarial, side=SIDE), moment.after, marks),
        (f"What changed{changed}", photo_uri(difference, side=SIDE), None, ""),
    )
    shown = "".join(
        f'<figure><div class="rs-shot" style="aspect-ratio:{width}/{height}"><img src="{uri}" alt="{caption}">'
        + (f'<img src="{mask_uri(mask, side=SIDE)}" alt="mask">' if mask is not None else "")
        + f"{over}</div><figcaption>{caption}</figcaption></figure>"
        for caption, uri, mask, over in pictures
    )
    return (
        f'<section class="rs-lane" data-iou="{moment.iou:.4f}" data-step="{moment.step}">{head}'
        f'<div class="rs-shots">{shown}</div>'
        f'<div class="rs-score"><p><span>{moment.iou:.2f}</span>IoU with the mask before</p>'
        f"{curve_svg(moment.curve, moment.steps)}</div></section>"
    )


def _marks(prompt: Prompt | None, width: int, height: int) -> str:
    inside = ""
    if prompt is not None and prompt.box:
        x0, y0, x1, y1 = prompt.box
        inside = f'<rect x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}"/>'
    elif prompt is not None:
        x, y = prompt.points[0]
        inside = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{max(width, height) / 80:.1f}"/>'
    return f'<svg class="rs-marks" viewBox="0 0 {width} {height}" aria-hidden="true">{inside}</svg>'


def _photo(image: Tensor) -> str:
    return photo_uri(to_uint8(image).permute(1, 2, 0).contiguous().numpy(), side=1024, quality=90)
