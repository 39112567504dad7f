"""The query loop: candidates of several images are shown to the victim together, and those that help are kept.

Nothing here asks for a gradient of the victim. Every look at it is counted per image, the first one included; an image
whose goal is reached leaves the batch and pays no more. Images are float Bx3xHxW in [0, 1].
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from redsam.attacks.gradient import ObjectiveAttack
from redsam.attacks.loop import Counter, Evaluate, State, Trace
from redsam.attacks.task import Task
from redsam.attacks.watch import show
from redsam.errors import InputError
from redsam.threat import Threat

NON_FINITE = "non-finite objective at the first query"


class Proposer(Protocol):
    """How a recipe searches. What it remembers lives in `state.memory`, which is cut with the batch; `state.step` is
    the number of queries each active image has spent, `state.steps` what it may spend in all."""

    def start(self, state: State) -> Tensor:
        """The first images to ask about, nx3xHxW; projected."""
        ...

    def propose(self, state: State) -> Tensor:
        """The next candidates around `state.x`, the best images so far; projected."""
        ...

    def learn(self, state: State, better: Tensor) -> None:
        """`better`: n bool, which candidates were kept; `state.x` and `state.rank` hold them already."""
        ...


@dataclass(frozen=True, kw_only=True)
class QueryAttack(ObjectiveAttack):
    """queries: looks at the victim that every image may have, the first included; the threat's own limit holds too.
    The pass that makes a reference, where none is given, is not among them. Delivers the best image asked about."""

    queries: int = 10_000

    @abstractmethod
    def proposer(self, task: Task) -> Proposer:
        """The recipe."""

    def search(self, task: Task) -> Trace:
        """The query loop."""
        queries = granted(self.queries, task.threat)
        return climb(self.evaluator(task), task, self.proposer(task), queries=queries)


def granted(queries: int, threat: Threat) -> int:
    """What an attack's own number and its threat leave of queries. Raises InputError when that is none."""
    left = queries if threat.queries is None else min(queries, threat.queries)
    if left < 1:
        raise InputError(f"{left} queries are no look at the victim.", hint="Give at least 1: --set queries=1000")
    return left


@torch.no_grad()
def climb(evaluate: Evaluate, task: Task, proposer: Proposer, *, queries: int) -> Trace:
    """Ask `queries` times for each image and keep what lowers the rank. `Trace.losses` is queries x B: the best rank
    after each look; `Trace.steps` the candidates tried, one fewer than the queries."""
    count, device = len(task), task.clean.device
    state = State(
        threat=task.threat, steps=queries, clean=task.clean, region=task.region, x=task.clean, best=task.clean,
        best_rank=torch.full((count,), float("inf"), device=device), generators=task.generators("queries"),
        active=list(range(count)), rows=torch.arange(count, device=device), gradient=torch.zeros(count, device=device),
        rank=torch.full((count,), float("inf"), device=device),
    )  # fmt: skip
    counted = Counter(evaluate=evaluate)
    out, asked, flags = task.clean.clone(), [queries] * count, [""] * count
    losses: list[Tensor] = []
    candidates = state.project(proposer.start(state))
    for step in range(queries):
        state.step = step
        show(step=step, steps=queries, images=state.x, active=state.active)
        if step:
            candidates = state.project(proposer.propose(state))
        # Ranks of different queries are compared, so a scheduled objective is asked for its last value.
        found = counted(candidates, state.active, 1.0)
        # A reached goal counts even where another candidate ranked better. Not a number is never better.
        better = found.rank < state.rank if found.reached is None else (found.rank < state.rank) | found.reached
        state.x = torch.where(better[:, None, None, None], candidates, state.x)
        state.rank = torch.where(better, found.rank, state.rank.to(found.rank))
        if step:
            proposer.learn(state, better)
        row = torch.full((count,), float("nan"), device=device, dtype=state.rank.dtype)
        losses.append(row.scatter(0, state.rows, state.rank))
        stopped = _stopped(state.rank, found.reached, first=step == 0)
        if any(stopped):
            for place, image in enumerate(state.active):
                if stopped[place]:
                    out[image], asked[image] = state.x[place], step + 1
                    flags[image] = NON_FINITE if not bool(state.rank[place].isfinite()) else ""
            state.keep([place for place, done in enumerate(stopped) if not done])
        if not state.active:
            break
    if state.active:
        out[state.rows] = state.x
    rest = torch.full((queries - len(losses), count), float("nan"))
    return Trace(
        images=out, losses=torch.cat([torch.stack(losses).cpu(), rest.to(losses[0].dtype)]),
        steps=tuple(n - 1 for n in asked), gradients=counted.gradients, forwards=counted.forwards, flags=tuple(flags),
        queries=tuple(asked),
    )  # fmt: skip


def _stopped(rank: Tensor, reached: Tensor | None, *, first: bool) -> Sequence[bool]:
    """Per active image: goal reached, or nothing to compare with from the first look on."""
    done = torch.zeros_like(rank, dtype=torch.bool) if reached is None else reached
    answer: list[bool] = (done | ~rank.isfinite() if first else done).tolist()
    return answer
