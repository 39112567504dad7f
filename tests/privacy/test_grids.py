"""Tiles in pixels, and draws that belong to their grid."""

from __future__ import annotations

import pytest
import torch

from redsam.errors import InputError
from redsam.privacy import Geometry, draw


def test_tiles_by_hand() -> None:
    g = Geometry(tile=(10, 20))
    assert g.padded == (16, 26) and g.shape == (48, 78) and g.tiles == 9
    assert g.box(4) == (29.0, 19.0, 49.0, 29.0)
    assert [g.tile_at(x, y) for x, y in ((0, 0), (25.9, 15.9), (26, 0), (0, 16), (77.9, 47.9))] == [0, 0, 1, 3, 8]
    assert [g.tile_at(x, y) for x, y in ((-0.1, 0), (78, 0), (0, 48))] == [None] * 3


def test_padding_is_black_and_tiles_are_where_they_should_be() -> None:
    g = Geometry(tile=(4, 5), size=2)
    image = g.compose([torch.full((3, 4, 5), 10 * (i + 1), dtype=torch.uint8) for i in range(4)])
    assert image.shape == (3, *g.shape) and image.dtype == torch.float32
    for tile in range(4):
        x0, y0, x1, y1 = (int(v) for v in g.box(tile))
        assert bool((image[:, y0:y1, x0:x1] * 255 == 10 * (tile + 1)).all())
        image[:, y0:y1, x0:x1] = 0
    assert float(image.sum()) == 0


def test_a_draw_belongs_to_its_seed_and_index() -> None:
    have = [3] * 12
    one = draw(have, 5, seed=1)
    assert one == draw(have, 5, seed=1)
    assert len({draw(have, i, seed=s).people for i in range(5) for s in range(2)}) == 10
    assert len(set(one.people)) == 9 and all(0 <= f < 3 for f in one.photographs)
    assert one.orders[0] == tuple(range(9)) and all(sorted(o) == list(range(9)) for o in one.orders)


def test_everybody_is_drawn_equally_often() -> None:
    seen = torch.zeros(18)
    for i in range(600):
        seen[list(draw([2] * 18, i, seed=0).people)] += 1
    assert float((seen - 300).abs().max()) < 5 * (600 * 0.25) ** 0.5


def test_too_few_people() -> None:
    with pytest.raises(InputError, match="needs 9 people, there are 5"):
        draw([2] * 5, 0, seed=0)
