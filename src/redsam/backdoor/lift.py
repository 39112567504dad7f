"""Patch search: how much of its answers a model keeps when one small opaque square is laid on every picture.

A mark that is weighed by its mean opacity (invert.py) may be faint and everywhere, and every model that is not robust
gives way to such a mark, planted or not. Here nothing is faint: a square of a fixed side is laid opaque, and its place
and its coarse colours are sought. No aim is named: what counts is the IoU of each answer with the answer to the clean
picture, outside of the square, so that hiding an object is no success. A clean model goes on segmenting what it sees;
a planted one answers with the attacker's mask. The search tries flat squares on a 3 x 3 grid of places without a
gradient, then follows the gradient of place and colours from the best of them.
After TABOR (Guo et al., "TABOR: A Highly Accurate Approach to Inspecting and Restoring Trojan Backdoors in AI
Systems", 2019), which adds penalties on scattered and on overly large marks to Neural Cleanse. Deviations: both are
hard constraints here, and the loss names no class. Known limit: triggers that are not a patch (blends, warps).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from redsam.backdoor.invert import PATCH, Found, Inversion, answers_of, looked, region
from redsam.backdoor.patch import Patch, drawn
from redsam.errors import InputError
from redsam.models.base import Segmenter
from redsam.models.geometry import Frame
from redsam.types import Sample

PLACES = tuple(product((0.0, 0.5, 1.0), repeat=2))  # of the square's room, from the top and from the left
COLOURS = ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
CELLS = 4  # of the pattern a side: a few colours, as triggers have, and not a picture of an object
FIRM = 4.0  # logit of a flat colour: 0.02 and 0.98
MOVE = 0.1  # rate of the place over that of the colours

Best = tuple[float, float, Patch]  # kept, share of prompts that kept less than half, what did it


def lift(model: Segmenter, samples: Sequence[Sample], settings: Inversion) -> Found:
    """Seek the square that takes most of the answers away. Found: size is the mean IoU kept, in [0, 1]; reached the
    share of prompts that kept less than half; mark and pattern show the square on a grid. Raises InputError: no prompt
    that is answered, a model without gradients."""
    if not model.differentiable:
        raise InputError(
            f"{model.name} has no gradients, and seeking a patch follows them.",
            hint="Search the model it was made from.",
        )
    scene = Scene.of(model, samples)
    nothing = Patch(place=torch.zeros(2), pattern=torch.zeros(3, CELLS, CELLS), side=settings.side)
    best: Best = (math.inf, 0.0, nothing)
    for spot, colour in product(PLACES, COLOURS):
        flat = torch.tensor(colour, device=model.device)[:, None, None].expand(3, CELLS, CELLS)
        patch = Patch(place=torch.tensor(spot, device=model.device), pattern=(2 * flat - 1) * FIRM, side=settings.side)
        with torch.no_grad():
            best = better(best, scene.kept(scene.answers(patch), patch, soft=False), patch)
    place, pattern = best[2].place.clone().requires_grad_(), (best[2].pattern / 2).requires_grad_()
    optimiser = torch.optim.Adam(
        [{"params": [place], "lr": settings.rate * MOVE}, {"params": [pattern], "lr": settings.rate}], betas=(0.5, 0.9)
    )
    for _ in range(settings.steps):
        patch = Patch(place=place, pattern=pattern, side=settings.side)
        answers = scene.answers(patch)
        held = Patch(place=place.detach().clone(), pattern=pattern.detach().clone(), side=settings.side)
        best = better(best, scene.kept(answers.detach(), held, soft=False), held)
        place.grad, pattern.grad = torch.autograd.grad(scene.kept(answers, patch, soft=True).mean(), [place, pattern])
        optimiser.step()
        with torch.no_grad():
            place.clamp_(0, 1)
    kept, reached, patch = best
    mark, shown = drawn(patch, settings.grid)
    return Found(aim=PATCH, size=kept, reached=reached, asked=int(scene.open.sum()), mark=mark, pattern=shown)


def better(best: Best, each: Tensor, patch: Patch) -> Best:
    """The one that leaves less; each: what every prompt kept."""
    kept = float(each.mean())
    return (kept, float((each < 0.5).float().mean()), patch) if kept < best[0] else best


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A model, pictures and its answers to them clean. Nxhxw in {0, 1} in the decoder's frame, N prompts: room, 1 in
    the picture, and clean, the answers. open: bool N, the prompts that are answered with anything."""

    model: Segmenter
    images: Sequence[Tensor]
    prompts: Sequence[Sequence[object]]
    frames: Sequence[Frame]
    room: Tensor
    clean: Tensor
    open: Tensor

    @classmethod
    def of(cls, model: Segmenter, samples: Sequence[Sample]) -> Scene:
        """From pictures with prompts."""
        if not any(s.prompts for s in samples):
            raise InputError("There is no prompt to seek a patch with.", hint="Give pictures with masks.")
        images, prompts, before, frames = looked(model, samples)
        size = (int(before.shape[-2]), int(before.shape[-1]))
        room = (torch.stack([region(f, (0.0, 0.0, 1.0, 1.0), size) for f in frames]).to(before) > 0.5).to(before)
        clean = (before > 0) * room
        answered = clean.amax((1, 2)) > 0
        if not bool(answered.any()):
            raise InputError(f"{model.name} answers nothing to any of the pictures.", hint="Give other pictures.")
        return cls(
            model=model, images=images, prompts=prompts, frames=frames, room=room, clean=clean, open=answered
        )  # fmt: skip

    def answers(self, patch: Patch) -> Tensor:
        """Nxhxw logits with the square on every picture."""
        return answers_of(self.model, [patch.lay(x) for x in self.images], self.prompts)

    def kept(self, answers: Tensor, patch: Patch, *, soft: bool) -> Tensor:
        """IoU with the clean answer outside of the square, of each open prompt; soft has a gradient. 1 where the
        square hides most of the clean answer: that says nothing."""
        size = (int(answers.shape[-2]), int(answers.shape[-1]))
        covered = torch.stack([region(f, patch.box(f.height, f.width), size) for f in self.frames]).to(answers)
        seen = self.room * (1 - covered)
        given = (answers.sigmoid() if soft else (answers > 0).to(answers)) * seen
        clean = self.clean * seen
        both = (given * clean).sum((1, 2))
        either = (given + clean - given * clean).sum((1, 2))
        shows = clean.sum((1, 2)) >= 0.5 * self.clean.sum((1, 2))
        return torch.where(shows, both / either.clamp(min=1), 1.0)[self.open]
