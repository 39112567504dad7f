"""Prompts as coordinates that can move: where each may go, how a model answers them, and the way back to a Prompt.

A handle is a point or a corner of a box, (x, y) in original pixels, float64. The image is encoded once and stays as it
is; only the decoder runs for every move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from redsam.attacks.task import Task
from redsam.errors import InputError
from redsam.models import pipeline
from redsam.models.values import Encoding, Select
from redsam.prompts import Prompt

# A moved box keeps half a pixel on either side of its old middle, or what it had there when that was less.
HALF_GAP = 0.5
STILL = "no point or box to move"


@dataclass(frozen=True, kw_only=True, eq=False)
class Moves:
    """The handles of a task's prompts, all images' in order: home, low and high are one Kx2 tensor per prompt; owner:
    the image of each prompt."""

    task: Task
    encoding: Encoding
    home: list[Tensor]
    low: list[Tensor]
    high: list[Tensor]
    owner: list[int]

    @classmethod
    def of(cls, task: Task) -> Moves:
        """Encodes the clean images once, without gradient. Raises InputError in the model's own frame."""
        if task.frame is not None:
            raise InputError("Prompts move in original pixels only.", hint="Leave the threat's space at 'image'.")
        height, width = (int(n) for n in task.clean.shape[-2:])
        flat = [(owner, prompt) for owner, prompts in enumerate(task.prompts) for prompt in prompts]
        bounds = [limits(prompt, height, width) for _, prompt in flat]
        with torch.no_grad():
            encoding = task.encode(task.clean)
        return cls(
            task=task, encoding=encoding, home=[pipeline.handles_of(p) for _, p in flat],
            low=[b[0] for b in bounds], high=[b[1] for b in bounds], owner=[o for o, _ in flat],
        )  # fmt: skip

    def confine(self, places: Sequence[Tensor]) -> list[Tensor]:
        """Each handle to within eps of home (Euclidean), then into its own limits, which only brings it nearer."""
        eps, out = self.task.threat.eps, []
        for place, home, low, high in zip(places, self.home, self.low, self.high, strict=True):
            away = place - home
            length = torch.linalg.vector_norm(away, dim=1, keepdim=True).clamp_min(1e-12)
            out.append((home + away * (eps / length).clamp_max(1.0)).clamp(low, high))
        return out

    def answers(self, places: Sequence[Tensor], active: Sequence[int], select: Select) -> tuple[Tensor, Tensor, Tensor]:
        """Of the prompts of these images, in order: NxHxW logits of the selected masks (with gradients to `places`),
        NxHxW bool references, and the row in `active` of each prompt's image."""
        index = torch.tensor(list(active), device=self.encoding.features.device)
        part = Encoding(
            features=self.encoding.features.index_select(0, index),
            extra=tuple(e.index_select(0, index) for e in self.encoding.extra),
            frames=tuple(self.encoding.frames[i] for i in active),
            images=tuple(self.encoding.images[i] for i in active) if self.encoding.images else (),
        )
        references = [r for i in active for r in [(self.task.reference or ())[i]]]
        prediction = pipeline.decode(
            self.task.segmenter, part, [self.task.prompts[i] for i in active], multimask=select != "single",
            handles=[places[n] for n in self.of_images(active)],
        )  # fmt: skip
        logits = prediction.logits(select=select, reference=references)
        return torch.cat(logits), torch.cat(references), torch.tensor(prediction.owner, device=index.device)

    def of_images(self, active: Sequence[int]) -> list[int]:
        """Positions of these images' prompts."""
        return [n for i in active for n, owner in enumerate(self.owner) if owner == i]

    def prompts(self, places: Sequence[Tensor]) -> tuple[tuple[Prompt, ...], ...]:
        """The prompts with their handles at `places`, per image."""
        flat = [prompt for prompts in self.task.prompts for prompt in prompts]
        made = [moved(prompt, place) for prompt, place in zip(flat, places, strict=True)]
        return tuple(tuple(made[n] for n in self.of_images([i])) for i in range(len(self.task)))

    def flags(self) -> list[str]:
        """A remark for images whose prompts cannot move."""
        return [
            "" if any(len(self.home[n]) for n in self.of_images([i])) else STILL for i in range(len(self.task))
        ]  # fmt: skip


def limits(prompt: Prompt, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Kx2 lowest and highest coordinates of each handle: points on the image's pixels, corners on the image and on
    their own side of the box's middle, so that it stays a box. The handle itself is always inside."""
    low = [(0.0, 0.0)] * len(prompt.points)
    high = [(max(x, width - 1.0), max(y, height - 1.0)) for x, y in prompt.points]
    if prompt.box is not None:
        x0, y0, x1, y1 = prompt.box
        gaps = [min(HALF_GAP, (end - start) / 2) for start, end in ((x0, x1), (y0, y1))]
        middle = [(x0 + x1) / 2, (y0 + y1) / 2]
        low += [(0.0, 0.0), (middle[0] + gaps[0], middle[1] + gaps[1])]
        high += [(middle[0] - gaps[0], middle[1] - gaps[1]), (float(width), float(height))]
    return tuple(torch.tensor(v, dtype=torch.float64).view(-1, 2) for v in (low, high))  # type: ignore[return-value]


def moved(prompt: Prompt, place: Tensor) -> Prompt:
    """The prompt with its handles at Kx2 `place`; a prompt without handles is returned as it is."""
    if not len(place):
        return prompt
    rows = [(float(x), float(y)) for x, y in place.tolist()]
    count = len(prompt.points)
    box = None if prompt.box is None else (*rows[count], *rows[count + 1])
    return replace(prompt, points=tuple(rows[:count]), box=box)


def disc(count: int, generator: torch.Generator) -> Tensor:
    """count x 2 offsets, uniform in the unit disc, drawn on the CPU."""
    radius, turn = torch.rand(2, count, 1, generator=generator, dtype=torch.float64)
    angle = turn * 2 * torch.pi
    offsets: Tensor = radius.sqrt() * torch.cat([angle.cos(), angle.sin()], dim=1)
    return offsets


def overlap(masks: Tensor, reference: Tensor) -> Tensor:
    """IoU of NxHxW bool masks, 1 where both are empty."""
    both = (masks & reference).flatten(1).sum(1).double()
    either = (masks | reference).flatten(1).sum(1).double()
    return torch.where(either > 0, both / either.clamp_min(1), torch.ones_like(both))
