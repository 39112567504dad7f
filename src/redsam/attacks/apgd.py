"""APGD, Auto-PGD: momentum, and a step that halves itself when progress stalls (Croce & Hein, 2020, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from redsam.attacks.gradient import GradientAttack
from redsam.attacks.loop import Parts, Rule, State
from redsam.attacks.parts import steepest, uniform
from redsam.registry import register
from redsam.threat import Threat

# Section 3: first step size 2 eps, momentum 0.75, checkpoints at 0.22 N, then gaps shrinking by 0.03 N down to 0.06 N.
FIRST_STEP, MOMENTUM = 2.0, 0.75
FIRST_GAP, GAP_SHRINKS, LEAST_GAP = 0.22, 0.03, 0.06


@register("attack", "apgd", paper="Reliable Evaluation of Adversarial Robustness (Croce & Hein)", year=2020,
          url="https://arxiv.org/abs/2003.01690", norms=("linf", "l2"), kind="white-box",
          knowledge=("white-box", "transfer"), cost="steps gradients")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class APGD(GradientAttack):
    """Auto-PGD, one run from a random start; no step size to choose.

    steps 100 and rho 0.75 as published. Always delivers the best iterate. Deviations: the linf start is uniform in the
    ball (the authors' code stretches it until it touches the boundary); where paper (<) and code (<=) differ on how few
    improvements halve the step, the code is followed; the first gap counts the step from the start as one, which the
    code compares with nothing.
    """

    steps: int = 100
    rho: float = 0.75
    random_start: bool = True

    def parts(self, threat: Threat) -> Parts:
        start = uniform if self.random_start else self.clean_start()
        return Parts(steps=self.steps, start=start, rule=auto_step(self.steps, self.rho), keep_best=True)


def checkpoints(steps: int) -> dict[int, int]:
    """Steps taken at which progress is judged, each with its gap to the one before, rounded as in the authors' code."""
    gap, shrink, least = (max(int(share * steps), 1) for share in (FIRST_GAP, GAP_SHRINKS, LEAST_GAP))
    out, at = {}, gap
    while at < steps:
        out[at] = gap
        gap = max(gap - shrink, least)
        at += gap
    return out


def auto_step(steps: int, rho: float) -> Rule:
    """The step rule; everything it remembers is per image and lives in `state.memory`."""
    gaps = checkpoints(steps)

    def rule(gradient: Tensor, state: State) -> Tensor:
        if state.step == 0:
            _begin(gradient, state)
        else:
            _record(gradient, state)
            if state.step in gaps:
                _judge(state, gaps[state.step], rho)
        m = state.memory
        x, direction = m["x"], steepest(m["gradient"], state.threat.norm)
        pushed = state.project(x - m["size"][:, None, None, None] * direction)
        share = MOMENTUM if state.step else 1.0
        target = x + share * (pushed - x) + (1 - share) * (x - m["previous"])
        m["previous"] = x
        return target

    return rule


def _begin(gradient: Tensor, state: State) -> None:
    state.memory |= {
        "size": torch.full_like(state.x[:, 0, 0, 0], FIRST_STEP * state.threat.eps),
        "x": state.x,
        "previous": state.x,
        "gradient": gradient,
        "best_gradient": gradient,
        "best_seen": state.best_rank,
        "last_rank": state.rank,
        "improved": torch.zeros_like(state.rank),
        "best_at_check": state.best_rank,
        "halved": torch.ones_like(state.rank, dtype=torch.bool),
    }


def _record(gradient: Tensor, state: State) -> None:
    m = state.memory
    better = state.best_rank < m["best_seen"]
    m["best_gradient"] = torch.where(better[:, None, None, None], gradient, m["best_gradient"])
    m["best_seen"] = state.best_rank
    m["improved"] = m["improved"] + (state.rank < m["last_rank"])
    m["last_rank"] = state.rank
    m["x"], m["gradient"] = state.x, gradient


def _judge(state: State, gap: int, rho: float) -> None:
    """At a checkpoint: too few improvements, or no new best since the last with an unchanged step, halve the step and
    go back to the best point."""
    m = state.memory
    stalled = ~m["halved"] & (m["best_at_check"] <= state.best_rank)
    halve = (m["improved"] <= rho * gap) | stalled
    back = halve[:, None, None, None]
    m["size"] = torch.where(halve, m["size"] / 2, m["size"])
    m["x"] = torch.where(back, state.best, m["x"])
    m["gradient"] = torch.where(back, m["best_gradient"], m["gradient"])
    m["halved"], m["best_at_check"] = halve, state.best_rank
    m["improved"] = torch.zeros_like(m["improved"])
