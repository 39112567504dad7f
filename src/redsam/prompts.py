"""Prompt: what a person tells a promptable model about one object, in original-image pixels.

Coordinates are (x, y) with x to the right and y down, in pixels of the image as it was given (EXIF rotation applied),
the frame of `Sample.image`. No class here knows a model's own frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redsam.errors import InputError

Box = tuple[float, float, float, float]
# No published text encoder reads more than 256 tokens; what is longer is a mistake, not a question.
MAX_TEXT = 1000


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompt:
    """One prompt; any combination of its parts may be set, at least one must be.

    points: ((x, y), ...) in pixels. labels: 1 inside / 0 outside, one for each point. box: (x0, y0, x1, y1).
    mask: HxW bool, a rough earlier mask at image size. text: for text-prompted models. found: with a
    text, boxes that a detector found for it and that the model shall not look for again; None lets it look.
    """

    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()
    box: Box | None = None
    mask: NDArray[np.bool_] | None = None
    text: str | None = None
    found: tuple[Box, ...] | None = None

    def __post_init__(self) -> None:
        if self.text is not None:
            self._check_text(self.text)
        if not (self.points or self.box or self.mask is not None or self.text):
            raise InputError("A prompt needs a point, a box, a mask or a text.", hint="Type: --point X,Y")
        if len(self.points) != len(self.labels):
            raise InputError(f"{len(self.points)} points came with {len(self.labels)} labels.", hint="Give one each.")
        if self.box is not None and not (self.box[2] > self.box[0] and self.box[3] > self.box[1]):
            raise InputError(f"Box {self.box} is empty.", hint="Give it as X0,Y0,X1,Y1 with X1 > X0 and Y1 > Y0.")
        flat = [c for p in self.points for c in p] + list(self.box or ())
        if not all(math.isfinite(c) for c in flat):
            raise InputError("A prompt coordinate is not a finite number.")

    def _check_text(self, text: str) -> None:
        if not text.strip() or len(text) > MAX_TEXT:
            what = f"has {len(text):,} characters" if text.strip() else "is empty"
            raise InputError(f"The text prompt {what}.", hint=f"Name what to find in 1 to {MAX_TEXT} characters.")

    @property
    def kind(self) -> str:
        """`point`, `points`, `box`, `mask`, `text`, or parts joined by `+` (`point+box`)."""
        parts = [("point" if len(self.points) == 1 else "points") if self.points else "", "box" if self.box else ""]
        parts += ["mask" if self.mask is not None else "", "text" if self.text else ""]
        return "+".join(p for p in parts if p)

    def check(self, height: int, width: int) -> None:
        """Raise InputError when a point or box lies outside, or the mask is not of, an image of this size."""
        for x, y in self.points:
            if not (0 <= x < width and 0 <= y < height):
                raise InputError(
                    f"Point ({x:g}, {y:g}) lies outside the {width} x {height} image.",
                    hint=f"x goes from 0 to {width - 1}, y from 0 to {height - 1}.",
                )
        if self.box is not None:
            x0, y0, x1, y1 = self.box
            if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
                raise InputError(f"Box {self.box} reaches outside the {width} x {height} image.")
        if self.mask is not None and self.mask.shape != (height, width):
            raise InputError(
                f"The mask prompt is {self.mask.shape[1]} x {self.mask.shape[0]}, the image {width} x {height}.",
                hint="Resize the mask to the image (nearest neighbour).",
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready description; a mask is named by its area, its pixels stay with the sample."""
        out: dict[str, Any] = {"kind": self.kind}
        if self.points:
            out |= {"points": [list(p) for p in self.points], "labels": list(self.labels)}
        if self.box is not None:
            out["box"] = list(self.box)
        if self.mask is not None:
            out["mask_area"] = int(self.mask.sum())
        if self.text is not None:
            out["text"] = self.text
        if self.found is not None:
            out["found"] = [list(b) for b in self.found]
        return out


def point(x: float, y: float) -> Prompt:
    """One positive point."""
    return Prompt(points=((float(x), float(y)),), labels=(1,))


def points(xy: Sequence[tuple[float, float]], labels: Sequence[int] | None = None) -> Prompt:
    """Several points as ONE prompt; labels default to all positive."""
    chosen = tuple(int(v) for v in labels) if labels is not None else (1,) * len(xy)
    return Prompt(points=tuple((float(x), float(y)) for x, y in xy), labels=chosen)


def box(x0: float, y0: float, x1: float, y1: float) -> Prompt:
    """One box, corners in pixels."""
    return Prompt(box=(float(x0), float(y0), float(x1), float(y1)))


def mask(prior: NDArray[Any]) -> Prompt:
    """One HxW rough mask."""
    return Prompt(mask=np.asarray(prior, dtype=bool))


def text(name: str) -> Prompt:
    """One text: what to find, in a few words."""
    return Prompt(text=" ".join(name.split()))


def shift(before: Prompt, after: Prompt) -> float:
    """How far the farthest point or box corner moved, in pixels (Euclidean). Raises InputError when the two are not
    one prompt moved: other counts, labels, masks or texts."""
    same = (before.labels, before.box is None, before.text) == (after.labels, after.box is None, after.text)
    if not same or before.mask is not after.mask:
        raise InputError("A shifted prompt must keep its points, labels, mask and text.")
    pairs = list(zip(before.points, after.points, strict=True))
    if before.box is not None and after.box is not None:
        pairs += [(before.box[:2], after.box[:2]), (before.box[2:], after.box[2:])]
    return max((math.dist(a, b) for a, b in pairs), default=0.0)
