"""Task: what a recipe works on, prepared and checked by `Attack.run`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from redsam.models.base import Segmenter
from redsam.models.geometry import Frame
from redsam.models.values import Encoding
from redsam.prompts import Prompt
from redsam.seeds import stable_seed
from redsam.threat import Threat


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """B images of one size to attack together; everything is on the segmenter's device.

    clean: float Bx3xHxW in [0, 1] on the lattice, original pixels (the model's own frame without padding when `frame`
    is set). prompts: per image, in original pixels. reference: per image bool P_i x H x W in original pixels, None when
    nobody asked for it. region: Bx1xHxW bool where pixels may change, None is everywhere. seeds: one per image.
    frame: set when the attacked images live in the model's own frame (`threat.space == "model"`).
    """

    segmenter: Segmenter
    clean: Tensor
    prompts: Sequence[Sequence[Prompt]]
    reference: Sequence[Tensor] | None = None
    region: Tensor | None = None
    threat: Threat = Threat()
    seeds: Sequence[int] = ()
    frame: Frame | None = None

    def __len__(self) -> int:
        return len(self.clean)

    def encode(self, images: Tensor) -> Encoding:
        """nx3xHxW to an Encoding whose masks come back in original pixels."""
        return self.framed(self.segmenter.encode(images))

    def framed(self, encoding: Encoding) -> Encoding:
        """In the model's frame the resize inside `encode` changes nothing; prompts and masks keep the original one."""
        if self.frame is None:
            return encoding
        return replace(encoding, frames=(self.frame,) * len(encoding.features))

    def generators(self, *salt: str | int) -> list[torch.Generator]:
        """A fresh CPU generator per image; other `salt`, other draws. They do not depend on the rest of the batch."""
        return [torch.Generator().manual_seed(stable_seed(seed, *salt)) for seed in self.seeds]

    def subset(self, rows: Sequence[int]) -> Task:
        """The task of these images only."""
        index = torch.tensor(list(rows), dtype=torch.long, device=self.clean.device)
        return replace(
            self,
            clean=self.clean[index],
            prompts=[self.prompts[i] for i in rows],
            reference=None if self.reference is None else [self.reference[i] for i in rows],
            region=None if self.region is None else self.region[index],
            seeds=[self.seeds[i] for i in rows],
        )
