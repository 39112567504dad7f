"""Prompt shift: what a sloppy click costs, by random search around the prompts; the image stays as it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from redsam.attacks.base import Attack
from redsam.attacks.goal import per_image
from redsam.attacks.loop import Trace
from redsam.attacks.moves import Moves, disc, overlap
from redsam.attacks.query import granted
from redsam.attacks.task import Task
from redsam.errors import InputError
from redsam.registry import register


@register("attack", "prompt-shift", paper="Stable Segment Anything Model, on imprecise prompts (Fan et al.)",
          year=2023, url="https://arxiv.org/abs/2311.15776", norms=("shift",), kind="prompt", knowledge=("score",),
          cost="samples decoder forwards, 1 encoder forward")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class PromptShift(Attack):
    """Every point and corner of a box moves to a place drawn uniformly within eps pixels, `samples` times; of each
    prompt the draw with the lowest IoU with the reference is kept (the unmoved prompt is the first query).

    `losses` holds each draw's IoU, mean over the image's prompts: row 0 is unmoved, the mean of the others what a
    sloppy click costs on average. Points stay on the image's pixels, boxes on the image and on either side of their
    middle.
    Deviation: the search is ours; Fan et al. draw noisy boxes and report the mean. samples 100 is ours.
    """

    samples: int = 100

    def needs_reference(self) -> bool:
        """What the moved prompts' masks are compared with."""
        return True

    def search(self, task: Task) -> Trace:
        """Random search; prompts are independent, so each keeps its own worst draw."""
        if self.samples < 1:
            raise InputError(f"{self.samples} samples move nothing.", hint="Give at least 1.")
        moves, rounds = Moves.of(task), granted(self.samples + 1, task.threat)
        generators = task.generators("prompt-shift")
        active, asked = list(range(len(task))), [rounds] * len(task)
        kept = list(moves.home)
        worst = torch.full((len(kept),), float("inf"), dtype=torch.float64)
        losses = torch.full((rounds, len(task)), float("nan"), dtype=torch.float64)
        for step in range(rounds):
            places = self._drawn(moves, generators) if step else list(moves.home)
            with torch.no_grad():
                logits, reference, owner = moves.answers(places, active, self.select)
            iou = overlap(logits > 0, reference)
            losses[step, active] = per_image(iou, owner, len(active)).cpu()
            for n, value in zip(moves.of_images(active), iou.tolist(), strict=True):
                if value < float(worst[n]):
                    worst[n], kept[n] = value, places[n]
            if self.stop_at is not None:
                done = [i for i in active if bool((worst[moves.of_images([i])] <= self.stop_at).all())]
                for image in done:
                    asked[image] = step + 1
                active = [i for i in active if i not in done]
                if not active:
                    break
        return Trace(
            images=task.clean, losses=losses, steps=tuple(n - 1 for n in asked), gradients=0, forwards=sum(asked),
            flags=tuple(moves.flags()), queries=tuple(asked), prompts=moves.prompts(kept),
        )  # fmt: skip

    def _drawn(self, moves: Moves, generators: list[torch.Generator]) -> list[Tensor]:
        eps = moves.task.threat.eps
        return moves.confine(
            [
                home + eps * disc(len(home), generators[owner])
                for home, owner in zip(moves.home, moves.owner, strict=True)
            ]
        )
