"""PATA++: PATA with a fresh competitor at every step (Zheng et al., 2023)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from redsam.attacks.feature import Anchors, Features
from redsam.attacks.pata import PATA, Competitors
from redsam.attacks.photographs import crops
from redsam.attacks.task import Task
from redsam.errors import InputError
from redsam.registry import register

Source = Literal["photographs", "patches"]


@register("attack", "pata++", paper="Black-box Targeted Adversarial Attack on Segment Anything (Zheng et al.)",
          year=2023, url="https://arxiv.org/abs/2310.10010", norms=("linf",), kind="transfer", noisy=True,
          knowledge=("white-box", "transfer"), cost="steps gradients + steps forwards", features="blocks")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class PATApp(PATA):
    """PATA's loss with a competitor drawn anew at every step by each image's generator.

    source: "photographs", the bundled ones without the attacked and the target picture, as UAD (2024) runs it with
    random images of SA-1B; "patches", random halves of the attacked image enlarged to its size, as reviews describe the
    paper's own way to do without other images. Deviation: bundled photographs instead of SA-1B, so competitors come
    round again; the size of a patch (half) is ours; the losses of two steps differ by their competitors too.
    """

    source: Source = "photographs"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source not in get_args(Source):
            raise InputError(
                f"There is no source '{self.source}' of competitors.",
                hint=f"Choose from {', '.join(get_args(Source))}.",
            )

    def passes_beside(self) -> int:
        """The target, and a competitor for every look at the loss."""
        return 1 + self.steps + 1

    def competitors(self, pictures: list[list[Tensor]], task: Task, anchors: Anchors) -> Competitors:
        """A new picture for each active image at each call."""
        generators = task.generators("competitors")
        if self.source == "patches":
            streams = [crops(image, g) for image, g in zip(task.clean, generators, strict=True)]
        else:
            streams = [drawn(others[1:], g) for others, g in zip(pictures, generators, strict=True)]

        def fresh(active: Sequence[int]) -> Features:
            return anchors(torch.stack([next(streams[i]) for i in active]))

        return fresh


def drawn(pictures: Sequence[Tensor], generator: torch.Generator) -> Iterator[Tensor]:
    """Endless draws with replacement."""
    while True:
        yield pictures[int(torch.randint(len(pictures), (1,), generator=generator))]
