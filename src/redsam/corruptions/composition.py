"""Compositions: several corruptions one after another under one name, as in the Red-Teaming SAM paper.

Parts are looked up by name when they are needed, so a part may be anybody's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from redsam import registry
from redsam.corruptions.base import Corruption
from redsam.errors import InputError
from redsam.registry import register

PAPER, URL = "Red-Teaming Segment Anything Model (Jankowski et al.)", "https://arxiv.org/abs/2404.02067"


@dataclass(frozen=True, kw_only=True)
class Composition(Corruption):
    """The parts of PARTS in order, all of this severity, each by its own `run` on what the one before delivered in 8
    bits, with a seed drawn from the image's generator. A part may not move pixels.

    Deviation: the paper's conditions are outputs of CycleGANs with drops drawn over them; these are models without
    training. Its reference condition is the overcast photograph itself.
    """

    PARTS: ClassVar[tuple[str, ...]] = ()

    def parts(self) -> list[Corruption]:
        """What is run, in order."""
        made: list[Corruption] = []
        for name in self.PARTS:
            if registry.get("corruption", name).meta["geometric"]:
                raise InputError(f"'{name}' moves pixels, which a composition does not pass on.")
            made.append(registry.create("corruption", name, severity=self.severity))
        return made

    def corrupt(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        for part in self.parts():
            images = part.run(images, seeds=part_seeds(generators)).images
        return images


def part_seeds(generators: Sequence[torch.Generator]) -> list[int]:
    """The next part's seed of each image."""
    return [int(torch.randint(2**31 - 1, (), generator=g)) for g in generators]


@register("corruption", "wet", paper=PAPER, year=2024, url=URL, group="composition", geometric=False)
@dataclass(frozen=True, kw_only=True)
class Wet(Composition):
    """Wet: a closed sky over a wet road. Deviation: as stated for Composition."""

    PARTS: ClassVar[tuple[str, ...]] = ("overcast", "wet-road")


@register("corruption", "wet+drops", paper=PAPER, year=2024, url=URL, group="composition", geometric=False)
@dataclass(frozen=True, kw_only=True)
class WetDrops(Composition):
    """Wet, seen through drops on the glass. Deviation: as stated for Composition."""

    PARTS: ClassVar[tuple[str, ...]] = ("overcast", "wet-road", "raindrops")


@register("corruption", "overcast+drops", paper=PAPER, year=2024, url=URL, group="composition", geometric=False)
@dataclass(frozen=True, kw_only=True)
class OvercastDrops(Composition):
    """A closed sky, seen through drops on the glass. Deviation: as stated for Composition."""

    PARTS: ClassVar[tuple[str, ...]] = ("overcast", "raindrops")


@register("corruption", "night+drops", paper=PAPER, year=2024, url=URL, group="composition", geometric=False)
@dataclass(frozen=True, kw_only=True)
class NightDrops(Composition):
    """Night, seen through drops on the glass. Deviation: as stated for Composition."""

    PARTS: ClassVar[tuple[str, ...]] = ("night", "raindrops")


@register("corruption", "snow+drops", paper=PAPER, year=2024, url=URL, group="composition", geometric=False)
@dataclass(frozen=True, kw_only=True)
class SnowDrops(Composition):
    """Snowfall, seen through drops on the glass. Deviation: as stated for Composition."""

    PARTS: ClassVar[tuple[str, ...]] = ("snow", "raindrops")
