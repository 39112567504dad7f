"""A toy world in which a tiny model can really be taught: one coloured shape on a plain ground, its mask beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 64


def draw_world(folder: Path, count: int, seed: int) -> Path:
    """`count` pictures NAME.png with NAME_mask.png: a dark ground, a disc or a box of one bright colour."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for i in range(count):
        y, x, r = rng.uniform(16, 40), rng.uniform(16, 40), rng.uniform(9, 14)
        disc = (rows - y) ** 2 + (columns - x) ** 2 < r**2
        box = (abs(rows - y) < r * 0.9) & (abs(columns - x) < r * 0.9)
        mask = disc if i % 2 else box
        ground = rng.uniform(0, 90, size=3) + rng.normal(0, 8, size=(SIDE, SIDE, 3))
        shade = rng.permutation([210.0, rng.uniform(20, 120), rng.uniform(20, 120)]) + rng.normal(0, 8, (SIDE, SIDE, 3))
        pixels = np.where(mask[..., None], shade, ground).clip(0, 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"p{i:03d}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"p{i:03d}_mask.png")
    return folder
