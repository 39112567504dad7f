"""The faces of the planted truth: invented names, the split of photographs, and grids of them as the audit makes them.

40 anonymous people, 10 photographs each (AT&T Laboratories Cambridge; see the data room). Every person gets an invented
name; 20 people's names are taught, 20 are not. Of each person's photographs, six are trained on, one is watched during
training, three are left for the audit and never seen before it.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from redsam.models.geometry import Frame
from redsam.privacy import Geometry

SEED = 0
KNOWN = 20
TRAINED, WATCHED = 6, 1  # photographs of each person; the audit has the rest
# Invented: no name here is meant to be anybody's. The audit's decoys share no word with them.
GIVEN = (
    "Orla Tavi Benno Rika Milos Enya Dorian Salka Jorin Petra Luka Amira Casper Nilu Fenja Radek Ilse Tomas Yara "
    "Anselm Viggo Mirte Hanno Selma Kasim Lotte Emre Dunja Ruben Inka Stellan Noemi Oskar Zita Falk Merle Janos Thea "
    "Corin Ada"
)
SURNAMES = (
    "Velmar Kostrin Hallby Ordway Penrick Sandrel Toivan Wexford Zemlin Arkwell Brundt Caskov Delphin Estmark Fyrland "
    "Gromek Hestor Ilvane Jostad Kelwick Lorrent Mavrin Nordell Ostrec Pallwitz Quarme Rostand Silvek Torrane Ulvery "
    "Vandrick Wolmer Yxell Zarnow Althane Borvik Crennel Dravec Elsworth Fennimor"
)
Others = Literal["unnamed", "absent"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Faces:
    """folders, names: of P people. known: P bool. photographs: PxNx112x92 grey in [0, 1], in the order of `split`."""

    folders: tuple[str, ...]
    names: tuple[str, ...]
    known: tuple[bool, ...]
    split: tuple[tuple[str, ...], ...]
    photographs: Tensor

    def describe(self) -> dict[str, Any]:
        """JSON-ready: who is called what, who is taught, which photographs are for what."""
        rows = zip(self.folders, self.names, self.known, self.split, strict=True)
        return {
            folder: {
                "name": name, "known": known, "trained": list(files[:TRAINED]),
                "watched": list(files[TRAINED : TRAINED + WATCHED]), "audited": list(files[TRAINED + WATCHED :]),
            }
            for folder, name, known, files in rows
        }  # fmt: skip


def load_faces(root: Path, *, seed: int = SEED) -> Faces:
    """Read all photographs; names, the taught half and the split are drawn from the seed."""
    draw = random.Random(seed)
    folders = sorted((p.name for p in root.iterdir() if p.is_dir()), key=lambda name: (len(name), name))
    first, last = (draw.sample(words.split(), len(words.split())) for words in (GIVEN, SURNAMES))
    names = tuple(f"{a} {b}" for a, b in zip(first, last, strict=True))[: len(folders)]
    taught = set(draw.sample(range(len(folders)), min(KNOWN, len(folders) // 2)))
    split = []
    for folder in folders:
        files = sorted((p.name for p in (root / folder).glob("*.png")), key=lambda name: (len(name), name))
        split.append(tuple(draw.sample(files, len(files))))
    pixels = [
        [np.asarray(Image.open(root / folder / file).convert("L")) for file in files]
        for folder, files in zip(folders, split, strict=True)
    ]
    return Faces(
        folders=tuple(folders), names=names, known=tuple(i in taught for i in range(len(folders))), split=tuple(split),
        photographs=torch.from_numpy(np.array(pixels)).float() / 255,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Board:
    """Where the tiles of a 3 x 3 grid of faces lie in the model. frame: of the whole grid. place: 9xhxw, the share of
    each cell of a map of `cells` a side that the tile's face covers. valid: hxw, cells the picture reaches."""

    geometry: Geometry
    frame: Frame

    @classmethod
    def of(cls, faces: Faces, side: int) -> Board:
        """The audit's own geometry for these photographs."""
        height, width = faces.photographs.shape[-2:]
        geometry = Geometry(tile=(height, width))
        return cls(
            geometry=geometry, frame=Frame(kind="pad", height=geometry.shape[0], width=geometry.shape[1], side=side)
        )

    def place(self, cells: int, *, inset: float) -> Tensor:
        """inset: share of a face's sides cut off at each end, so that a box found stays smaller than a tile."""
        out = []
        for tile in range(self.geometry.tiles):
            x0, y0, x1, y1 = self.geometry.box(tile)
            dx, dy = inset * (x1 - x0), inset * (y1 - y0)
            y = _cover(y0 + dy, y1 - dy, self.frame.height, self.frame.content[0], self.frame.side, cells)
            x = _cover(x0 + dx, x1 - dx, self.frame.width, self.frame.content[1], self.frame.side, cells)
            out.append(y[:, None] * x[None, :])
        return torch.stack(out)

    def quarters(self, cells: int) -> Tensor:
        """9x4xhxw, each summing to 1: the means over the four quarters of every face."""
        out = []
        for tile in range(self.geometry.tiles):
            x0, y0, x1, y1 = self.geometry.box(tile)
            for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
                top, left = y0 + row * (y1 - y0) / 2, x0 + column * (x1 - x0) / 2
                size = self.frame.height, self.frame.width
                y = _cover(top, top + (y1 - y0) / 2, size[0], self.frame.content[0], self.frame.side, cells)
                x = _cover(left, left + (x1 - x0) / 2, size[1], self.frame.content[1], self.frame.side, cells)
                out.append(y[:, None] * x[None, :])
        weight = torch.stack(out)
        return (weight / weight.sum((1, 2), keepdim=True)).unflatten(0, (-1, 4))

    def valid(self, cells: int) -> Tensor:
        """1 where the map shows the picture, 0 where it shows padding."""
        y = _cover(0, self.frame.height, self.frame.height, self.frame.content[0], self.frame.side, cells)
        x = _cover(0, self.frame.width, self.frame.width, self.frame.content[1], self.frame.side, cells)
        return ((y[:, None] * x[None, :]) > 0.5).float()

    def compose(self, faces: Tensor) -> Tensor:
        """Bx9x112x92 faces in [0, 1] to the model's normalised Bx3xSxS."""
        size, pad = self.geometry.size, self.geometry.padding
        padded = F.pad((faces * 255).round() / 255, (pad, pad, pad, pad))
        grid = padded.unflatten(1, (size, size)).permute(0, 1, 3, 2, 4).reshape(len(faces), 1, *self.geometry.shape)
        return self.frame.fit(grid.expand(-1, 3, -1, -1))


def _cover(low: float, high: float, original: int, content: int, side: int, cells: int) -> Tensor:
    """Share of each of `cells` cells of the model's side that the span low..high of the original covers."""
    scale = content / original * cells / side
    edges = torch.arange(cells + 1, dtype=torch.float64)
    return (edges[1:].clamp(max=high * scale) - edges[:-1].clamp(min=low * scale)).clamp(min=0, max=1).float()


def draw_people(faces: Faces, *, count: int, others: Others, gen: torch.Generator) -> Tensor:
    """count x 9 distinct people; others "absent" draws from those who are taught alone."""
    weight = torch.tensor([1.0 if known or others == "unnamed" else 0.0 for known in faces.known])
    return torch.multinomial(weight.expand(count, -1), 9, generator=gen)


def draw_faces(faces: Faces, people: Tensor, photographs: tuple[int, int], *, gen: torch.Generator) -> Tensor:
    """Bx9x112x92: a photograph of each, from the half-open range of `photographs`, a little moved, turned, mirrored and
    relit. Gentle: faces must stay themselves."""
    chosen = torch.randint(*photographs, people.shape, generator=gen)
    picked = faces.photographs[people, chosen].flatten(0, 1)[:, None]
    u = torch.rand(len(picked), 7, generator=gen) * 2 - 1
    angle, zoom = u[:, 0] * 8 / 180 * math.pi, torch.exp(u[:, 1] * 0.1)
    mirror = torch.where(u[:, 2] < 0, -1.0, 1.0)
    ratio = picked.shape[-2] / picked.shape[-1]
    theta = torch.stack([
        torch.stack([zoom * angle.cos() * mirror, -zoom * angle.sin() * ratio, u[:, 3] * 0.1], -1),
        torch.stack([zoom * angle.sin() / ratio * mirror, zoom * angle.cos(), u[:, 4] * 0.1], -1),
    ], 1)  # fmt: skip
    grid = F.affine_grid(theta, list(picked.shape), align_corners=False)
    moved = F.grid_sample(picked, grid, padding_mode="border", align_corners=False)
    gain, lift = torch.exp(u[:, 5] * 0.25)[:, None, None, None], u[:, 6, None, None, None] * 0.1
    moved = ((moved - 0.5) * gain + 0.5 + lift).clamp(0, 1)
    return moved[:, 0].unflatten(0, people.shape)
