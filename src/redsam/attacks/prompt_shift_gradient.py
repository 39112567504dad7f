"""Prompt shift with gradient: projected steps on the coordinates of points and boxes; the image stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redsam import registry
from redsam.attacks.base import Attack
from redsam.attacks.check import blind
from redsam.attacks.goal import per_image
from redsam.attacks.loop import FLAT, NON_FINITE, Trace
from redsam.attacks.moves import Moves, disc, overlap
from redsam.attacks.parts import SMALL
from redsam.attacks.task import Task
from redsam.errors import InputError
from redsam.registry import register


@register("attack", "prompt-shift-gradient", paper="Stable Segment Anything Model, on imprecise prompts (Fan et al.)",
          year=2023, url="https://arxiv.org/abs/2311.15776", norms=("shift",), kind="prompt",
          knowledge=("white-box",), cost="steps decoder gradients, 1 encoder forward")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class PromptShiftGradient(Attack):
    """PGD on coordinates: every point and corner steps `step_size` pixels down the gradient of the soft Dice overlap
    with the reference, is pulled back to within eps of where it was, and stays on the image.

    step_size None is eps / 4; random_start begins at a random place within eps instead of the prompt as given. A
    prompt's worst iterate is kept (its last with `keep_best` False). Gradients count decoder passes of one image.
    Deviation: the attack is ours (PGD by Madry et al., 2018, in another space); Fan et al. only draw noisy prompts.
    20 steps are ours.
    """

    steps: int = 20
    step_size: float | None = None
    random_start: bool = False

    def needs_reference(self) -> bool:
        """What the moved prompts' masks are compared with."""
        return True

    def search(self, task: Task) -> Trace:
        """The loop over coordinates."""
        self._check(task)
        moves = Moves.of(task)
        size = task.threat.eps / 4 if self.step_size is None else self.step_size
        places, kept = self._start(moves), list(moves.home)
        lowest = torch.full((len(kept),), float("inf"), dtype=torch.float64)
        losses = torch.full((self.steps + 1, len(task)), float("nan"), dtype=torch.float64)
        active, taken, flags = list(range(len(task))), [self.steps] * len(task), moves.flags()
        gradients = forwards = 0
        for step in range(self.steps + 1):
            forwards, gradients = forwards + len(active), gradients + (len(active) if step < self.steps else 0)
            rank, slopes, reached = self._differentiate(moves, places, active, last=step == self.steps)
            mine = moves.of_images(active)
            owner = torch.tensor([active.index(moves.owner[n]) for n in mine])
            losses[step, active] = per_image(rank, owner, len(active))
            for n, value in zip(mine, rank.tolist(), strict=True):
                if value < float(lowest[n]) or not self.keep_best:
                    lowest[n], kept[n] = value, places[n]
            done = []
            for row, image in enumerate(active):
                own = [k for k, n in enumerate(mine) if moves.owner[n] == image]
                if not all(bool(slopes[k].isfinite().all()) and bool(rank[k].isfinite()) for k in own):
                    done.append(image)
                    flags[image] = f"{NON_FINITE} at step {step}"
                elif reached[row]:  # delivered even where an earlier place had less soft overlap
                    done.append(image)
                    for k in own:
                        kept[mine[k]] = places[mine[k]]
                elif step == 0 and not flags[image] and not any(bool(slopes[k].any()) for k in own):
                    flags[image] = FLAT
            for image in done:
                taken[image] = step
            for k, n in enumerate(mine):
                length = torch.linalg.vector_norm(slopes[k], dim=1, keepdim=True).clamp_min(SMALL)
                places[n] = places[n] - size * slopes[k] / length
            places = moves.confine(places)
            active = [i for i in active if i not in done]
            if not active:
                break
        return Trace(
            images=task.clean, losses=losses, steps=tuple(taken), gradients=gradients, forwards=forwards,
            flags=tuple(flags), prompts=moves.prompts(kept),
        )  # fmt: skip

    def _check(self, task: Task) -> None:
        if not task.segmenter.differentiable:
            raise blind("prompt-shift-gradient", task.segmenter)
        if self.steps < 1:
            raise InputError(f"An attack of {self.steps} steps does nothing.", hint="Give at least 1 step.")
        queries = task.threat.queries
        if queries is not None and self.steps + 1 > queries:
            raise InputError(
                f"{self.steps} steps need {self.steps + 1} forward passes, the threat grants {queries}.",
                hint=f"Give at most {max(queries - 1, 0)} steps or more queries.",
            )

    def _start(self, moves: Moves) -> list[Tensor]:
        if not self.random_start:
            return list(moves.home)
        generators, eps = moves.task.generators("prompt-shift-gradient"), moves.task.threat.eps
        pairs = zip(moves.home, moves.owner, strict=True)
        return moves.confine([home + eps * disc(len(home), generators[owner]) for home, owner in pairs])

    def _differentiate(
        self, moves: Moves, places: Sequence[Tensor], active: Sequence[int], *, last: bool
    ) -> tuple[Tensor, list[Tensor], list[bool]]:
        """For the prompts of these images: soft Dice N (CPU), slopes Kx2 each, and per image whether all its prompts
        are at `stop_at`."""
        mine = moves.of_images(active)
        leaves = [place.detach().requires_grad_(not last) for place in places]
        with torch.set_grad_enabled(not last):
            logits, reference, owner = moves.answers(leaves, active, self.select)
            losses = registry.get("objective", "dice").obj(logits, reference, progress=1.0)
        slopes = [torch.zeros_like(places[n]) for n in mine]
        if losses.requires_grad:  # a model whose masks do not depend on the coordinates has no slope there
            found = torch.autograd.grad(losses.sum(), [leaves[n] for n in mine], allow_unused=True)
            slopes = [zero if g is None else g for g, zero in zip(found, slopes, strict=True)]
        reached = [False] * len(active)
        if self.stop_at is not None:
            missed = (overlap(logits.detach() > 0, reference) > self.stop_at).float()
            reached = (torch.zeros(len(active), device=missed.device).index_add_(0, owner, missed) == 0).tolist()
        return losses.detach().double().cpu(), slopes, reached
