"""The one gradient loop and its parts: start, input transform, momentum, step rule, projection, keep-best, early stop.

The loop knows nothing of segmentation: `evaluate(images nx3xHxW, active, progress)` returns an `Evaluation` of the n
still active images, whose losses are minimised. Images are float Bx3xHxW in [0, 1]; every image has its own generator,
so a result does not depend on what else is in the batch. An image that stops (goal reached, gradient not finite) leaves
the batch, and its compute with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from redsam.attacks.watch import show
from redsam.errors import InputError
from redsam.models import draws
from redsam.prompts import Prompt
from redsam.threat import Threat

NON_FINITE = "non-finite gradient"
FLAT = "zero gradient at the first step"


class Evaluation(NamedTuple):
    """loss: n losses with their graph. rank: n detached numbers that compare iterates of different steps (smaller is
    better). reached: n bool, goal reached, or None when nobody asked."""

    loss: Tensor
    rank: Tensor
    reached: Tensor | None = None


class Evaluate(Protocol):
    """Images nx3xHxW and the batch positions they come from to an Evaluation; progress is steps taken / all steps."""

    def __call__(self, images: Tensor, active: Sequence[int], progress: float) -> Evaluation: ...


@dataclass(kw_only=True, eq=False)
class State:
    """What the parts see at one step; every tensor and every entry of `memory` has the n active images in front.

    x: the iterate whose `rank` and `gradient` are known. best: best iterate so far by `best_rank`. memory: what a part
    wants to remember from step to step; it is cut together with the batch. active, rows: positions of the active images
    in the whole batch, as a list and on the device.
    """

    threat: Threat
    steps: int
    clean: Tensor
    region: Tensor | None
    x: Tensor
    best: Tensor
    best_rank: Tensor
    generators: list[torch.Generator]
    active: list[int]
    rows: Tensor
    step: int = 0
    gradient: Tensor = field(default_factory=lambda: torch.empty(0))
    rank: Tensor = field(default_factory=lambda: torch.empty(0))
    memory: dict[str, Tensor] = field(default_factory=dict)

    def project(self, images: Tensor) -> Tensor:
        """Into the threat around the clean images."""
        return self.threat.project(images, self.clean, self.region)

    def keep(self, index: list[int]) -> None:
        """Go on with these rows only."""
        left = torch.tensor(index, dtype=torch.long, device=self.x.device)
        for name in ("clean", "x", "best", "best_rank", "gradient", "rank", "rows"):
            setattr(self, name, getattr(self, name)[left])
        self.region = None if self.region is None else self.region[left]
        self.memory = {key: value[left] for key, value in self.memory.items()}
        self.generators = [self.generators[i] for i in index]
        self.active = [self.active[i] for i in index]


Start = Callable[[State], Tensor]  # a first point, projected afterwards
Transform = Callable[[Tensor, State], Tensor]  # the image the model sees; differentiable
Gradient = Callable[[Tensor, State], Tensor]  # gradient post-processing
Rule = Callable[[Tensor, State], Tensor]  # processed gradient to the next iterate, projected


class Differentiate(Protocol):
    """The gradient at `state.x` (nx3xHxW) and the evaluation that ranks it; `slope` is its tool."""

    def __call__(self, evaluate: Evaluate, state: State) -> tuple[Evaluation, Tensor]: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
    """One attack as a choice of parts, for `steps` gradient steps. differentiate: where the gradient is taken, for
    recipes that average it over copies or neighbours of the iterate (default: once, at `transform` of it). keep_best:
    deliver the best iterate instead of the last. lattice: round every iterate to the 8-bit lattice, as attacks on files
    do, instead of the last one only. passes: forward passes of the model that one step costs."""

    steps: int
    start: Start
    rule: Rule
    transform: Transform | None = None
    differentiate: Differentiate | None = None
    gradients: tuple[Gradient, ...] = ()
    keep_best: bool = True
    lattice: bool = False
    passes: int = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """What a run leaves. images: float Bx3xHxW, projected. losses: (steps + 1)xB, every iterate's rank, the last row
    the last iterate's, nan after an image stopped. steps: gradient steps taken per image. gradients, forwards: passes
    of one image each. flags: what went wrong with an image, or ""; a reached goal is no flag, it shows in `steps`.
    queries: victim passes per image, of searches that count them. prompts: what a prompt attack made of them."""

    images: Tensor
    losses: Tensor
    steps: tuple[int, ...]
    gradients: int
    forwards: int
    flags: tuple[str, ...]
    queries: tuple[int, ...] = ()
    prompts: tuple[tuple[Prompt, ...], ...] | None = None


@dataclass(kw_only=True, eq=False)
class Counter:
    """An `Evaluate` that counts the images it was asked about, with and without gradient."""

    evaluate: Evaluate
    gradients: int = 0
    forwards: int = 0

    def __call__(self, images: Tensor, active: Sequence[int], progress: float) -> Evaluation:
        self.forwards += len(images)
        self.gradients += len(images) if torch.is_grad_enabled() else 0
        return self.evaluate(images, active, progress)


def descend(
    evaluate: Evaluate,
    clean: Tensor,
    *,
    threat: Threat,
    parts: Parts,
    seeds: Sequence[int],
    region: Tensor | None = None,
) -> Trace:
    """Minimise `evaluate` around `clean` (float Bx3xHxW in [0, 1]) inside `threat`; one seed for each image."""
    count, steps = clean.shape[0], parts.steps
    state = State(
        threat=threat, steps=steps, clean=clean, region=region, x=clean, best=clean,
        best_rank=torch.full((count,), float("inf"), device=clean.device),
        generators=[torch.Generator().manual_seed(int(s)) for s in seeds], active=list(range(count)),
        rows=torch.arange(count, device=clean.device),
    )  # fmt: skip
    state.x = _settle(parts.start(state), state, parts)
    out, taken, flags = clean.clone(), [steps] * count, [""] * count
    losses: list[Tensor] = []
    flat = torch.zeros(count, dtype=torch.bool, device=clean.device)
    counted = Counter(evaluate=evaluate)
    for step in range(steps):
        state.step = step
        show(step=step, steps=steps, images=state.x, active=state.active)
        result = _differentiate(counted, state, parts)
        losses.append(_row(state, count))
        size = state.gradient.abs().flatten(1).sum(1)
        finite = (size + state.rank).isfinite()
        if step == 0:
            flat = (size == 0) & finite
        _remember_best(state, finite)
        alive = finite if result.reached is None else finite & ~result.reached
        if not bool(alive.all()):  # the one wait for the device in a step
            for row, (live, fine) in enumerate(zip(alive.tolist(), finite.tolist(), strict=True)):
                if not live:
                    image = state.active[row]
                    taken[image], flags[image] = step, "" if fine else f"{NON_FINITE} at step {step}"
                    # A reached goal is delivered even where an earlier iterate ranked better on the objective.
                    out[image] = state.x[row] if fine else state.best[row]
            state.keep([row for row, live in enumerate(alive.tolist()) if live])
            if not state.active:
                break
        direction = state.gradient
        for process in parts.gradients:
            direction = process(direction, state)
        state.x = _settle(parts.rule(direction, state), state, parts)
    if state.active:
        out[state.rows] = _last(counted, state, parts)
        losses.append(_row(state, count))
    for image, (stuck, said) in enumerate(zip(flat.tolist(), flags, strict=True)):
        flags[image] = said or (FLAT if stuck and taken[image] else "")
    return Trace(
        images=out, losses=_fill(losses, steps + 1), steps=tuple(taken), gradients=counted.gradients,
        forwards=counted.forwards, flags=tuple(flags),
    )  # fmt: skip


def _last(evaluate: Evaluate, state: State, parts: Parts) -> Tensor:
    """The last iterate has not been looked at yet: one forward pass, then what is delivered of the active images."""
    state.step = state.steps
    final = _look(evaluate, state, 1.0)
    state.rank = final.rank
    _remember_best(state, final.rank.isfinite())
    if not parts.keep_best:
        return state.x
    if final.reached is None:
        return state.best
    return torch.where(final.reached[:, None, None, None], state.x, state.best)


def _row(state: State, count: int) -> Tensor:
    """The active images' ranks in the places of the whole batch, nan elsewhere."""
    return torch.full((count,), float("nan"), device=state.x.device, dtype=state.rank.dtype).scatter(
        0, state.rows, state.rank
    )


def _fill(rows: list[Tensor], count: int) -> Tensor:
    """Rows to one tensor on the CPU, padded with nan where all images stopped before the end."""
    rest = torch.full((count - len(rows), len(rows[0])), float("nan"))
    return torch.cat([torch.stack(rows).cpu(), rest.to(rows[0].dtype)])


def slope(evaluate: Evaluate, state: State, x: Tensor, transform: Transform | None = None) -> tuple[Evaluation, Tensor]:
    """The evaluation at `transform` of x (nx3xHxW) and its gradient with regard to x; of a model whose defence draws at
    random the means over its draws (EOT), computed one after the other."""
    looks = []
    for draw in range(draws.count()):
        leaf = x.detach().requires_grad_(True)
        with draws.looking_at(draw):
            seen = leaf if transform is None else transform(leaf, state)
            result = evaluate(seen, state.active, state.step / state.steps)
        if not result.loss.requires_grad:
            raise InputError(
                "The model's masks have no gradient with regard to the image.",
                hint="Wrap it with differentiable=False and attack it through its answers, or craft on another model.",
            )
        # The sum keeps images apart: d(sum)/d(image i) is the gradient of image i's own loss.
        (gradient,) = torch.autograd.grad(result.loss.sum(), leaf)
        looks.append((result._replace(loss=result.loss.detach()), gradient))
    if len(looks) == 1:
        return looks[0]
    return _mean([result for result, _ in looks]), torch.stack([gradient for _, gradient in looks]).mean(0)


@torch.no_grad()
def _look(evaluate: Evaluate, state: State, progress: float) -> Evaluation:
    """The evaluation of `state.x` without a gradient; over the same draws as `slope`, so that their ranks compare."""
    looks = []
    for draw in range(draws.count()):
        with draws.looking_at(draw):
            looks.append(evaluate(state.x, state.active, progress))
    return looks[0] if len(looks) == 1 else _mean(looks)


def _mean(looks: Sequence[Evaluation]) -> Evaluation:
    """Mean loss and rank; the goal is reached where every look says so."""
    reached = [look.reached for look in looks if look.reached is not None]
    return Evaluation(
        loss=torch.stack([look.loss for look in looks]).mean(0),
        rank=torch.stack([look.rank for look in looks]).mean(0),
        reached=torch.stack(reached).all(0) if reached else None,
    )


def _differentiate(evaluate: Evaluate, state: State, parts: Parts) -> Evaluation:
    """Fill `state.gradient` and `state.rank` at `state.x`."""
    if parts.differentiate is None:
        result, state.gradient = slope(evaluate, state, state.x, parts.transform)
    else:
        result, state.gradient = parts.differentiate(evaluate, state)
    state.rank = result.rank.detach()
    return result


def _remember_best(state: State, finite: Tensor) -> None:
    """First of equals wins, so a flat objective keeps what it started from."""
    better = (state.rank < state.best_rank) & finite
    state.best = torch.where(better[:, None, None, None], state.x, state.best)
    state.best_rank = torch.where(better, state.rank, state.best_rank)


def _settle(images: Tensor, state: State, parts: Parts) -> Tensor:
    """Rules and starts deliver what they like; what the model sees next is always inside the threat."""
    images = state.project(images.detach())
    if parts.lattice:
        images = state.threat.quantise(images, state.clean, state.region).to(images.dtype) / 255
    return images
