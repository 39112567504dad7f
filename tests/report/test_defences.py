"""Certificate maps, the scatter of defences, and the note on defences that nobody attacked knowingly."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from redsam.errors import InputError
from redsam.report.certificate import certificate_map
from redsam.report.pictures import MASK_RGB
from redsam.report.scatter import Mark, scatter_svg
from redsam.report.standalone import standalone


def test_a_map_tells_three_things_apart() -> None:
    photo = np.full((40, 60, 3), 100, dtype=np.uint8)
    mask, certified = np.zeros((40, 60), dtype=bool), np.ones((40, 60), dtype=bool)
    mask[:, :30] = True
    certified[20:] = False
    drawn = certificate_map(photo, mask, certified)
    assert drawn.dtype == np.uint8 and drawn.shape == photo.shape
    assert (drawn[:20, 30:] == 100).all(), "the certified rest is the photograph"
    wanted = 0.45 * 100 + 0.55 * np.array(MASK_RGB)
    assert (np.abs(drawn[:20, :30] - wanted) <= 0.5).all()
    stripes = drawn[20:].reshape(-1, 3)
    assert len(np.unique(stripes, axis=0)) == 2 and abs(int(stripes.max()) - int(stripes.min())) > 100
    assert (photo == 100).all()
    with pytest.raises(InputError):
        certificate_map(photo, mask[:10], certified)


def test_the_scatter() -> None:
    marks = [
        Mark(name="none", clean=(0.7, 0.6, 0.8), adaptive=(0.1, 0.05, 0.2), static=None, lead=True),
        Mark(name="jpeg:quality=50|<b>", clean=(0.65, 0.5, 0.7), adaptive=None, static=(0.5, 0.4, 0.6)),
    ]
    drawn = ElementTree.fromstring(standalone(scatter_svg(marks, title="robust & clean")))
    text = "".join(drawn.itertext())
    assert "robust & clean" in text and "jpeg:quality=50|<b> (no adaptive number)" in text
    dots = list(drawn.iter("{http://www.w3.org/2000/svg}circle"))
    assert len(dots) == 2 and [d.get("style") is None for d in dots] == [True, False]
    (x, y), (_, other) = ((float(d.get("cx") or 0), float(d.get("cy") or 0)) for d in dots)
    assert x > 200 and y > other, "less robust is further down"
