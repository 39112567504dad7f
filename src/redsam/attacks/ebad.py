"""EBAD: images crafted on a weighted ensemble, whose weights are searched by asking the victim (Cai et al., 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from redsam.attacks.loop import Counter, State, Trace
from redsam.attacks.query import QueryAttack, climb, granted
from redsam.attacks.task import Task
from redsam.errors import InputError
from redsam.models import lab_names, load
from redsam.models.base import Segmenter
from redsam.registry import register

# First step of a weight is 1 / (20 n); the authors' segmentation script looks for a stuck search after 5 queries.
WEIGHT_STEP, PATIENCE = 1 / 20, 5


@register("attack", "ebad", paper="Ensemble-based Blackbox Attacks on Dense Prediction (Cai et al.)", year=2023,
          url="https://github.com/CSIPlab/EBAD", norms=("linf",), kind="score", knowledge=("score",),
          cost="queries forwards, queries x iterations surrogate gradients")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class EBAD(QueryAttack):
    """Each query shows the victim what `iterations` sign steps of 2 eps / iterations on the surrogates' weighted loss
    make of the best image so far; one weight in turn is raised, then lowered, by 1 / (20 n), and the better of the two
    is kept if it beats the best; the step halves when a round of all weights changed nothing.

    surrogates: lab names, folders or files (default: every bundled lab model but the victim). 20 queries, 5 iterations.
    A surrogate's loss is divided by its size on the clean image, so that none outweighs the others (loss balancing,
    section 3.2). Deviation: the objective stands in for mIoU; with one surrogate, where there are no weights to search
    and the authors' script stops at its first query, every query goes on from the best image.
    """

    queries: int = 20
    iterations: int = 5
    surrogates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        given = [self.surrogates] if isinstance(self.surrogates, str) else self.surrogates  # JSON has lists and text
        object.__setattr__(self, "surrogates", tuple(given))

    def proposer(self, task: Task) -> Ensemble:
        if self.iterations < 1:
            raise InputError(f"{self.iterations} iterations craft nothing.", hint="Give at least 1.")
        models = ensemble(self.surrogates, task.segmenter)
        evaluators = []
        for model in models:
            frame = None if task.frame is None else model.frame(task.frame.height, task.frame.width)
            evaluators.append(Counter(evaluate=replace(self, stop_at=None).evaluator(
                replace(task, segmenter=model, frame=frame))))  # fmt: skip
        return Ensemble(evaluators=evaluators, iterations=self.iterations)

    def search(self, task: Task) -> Trace:
        """The query loop, with the surrogates' passes counted too."""
        craft = self.proposer(task)
        trace = climb(self.evaluator(task), task, craft, queries=granted(self.queries, task.threat))
        return replace(
            trace,
            gradients=sum(e.gradients for e in craft.evaluators),
            forwards=trace.forwards + sum(e.forwards for e in craft.evaluators),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Ensemble:
    """The proposer. Memory per image: weights (n x surrogates), size of the clean losses, step of the weights, which
    weight is tried, the last that helped; and, while a weight is tried, where it started from."""

    evaluators: Sequence[Counter]
    iterations: int

    def start(self, state: State) -> Tensor:
        n = len(self.evaluators)
        clean = torch.stack([e(state.clean, state.active, 1.0).rank for e in self.evaluators], dim=1)
        state.memory |= {
            "size": clean.abs().clamp_min(1e-12),
            "weights": torch.full_like(clean, 1 / n),
            "step": torch.full_like(state.rank, WEIGHT_STEP / n),
            "at": torch.zeros_like(state.rows),
            "last": torch.zeros_like(state.rows),
            "base": state.clean,
            "base_weights": torch.full_like(clean, 1 / n),
        }
        return self._craft(state, state.clean, state.memory["weights"])

    def propose(self, state: State) -> Tensor:
        m = state.memory
        up = state.step % 2 == 1  # every round is two queries, for all images alike
        if up or len(self.evaluators) == 1:
            m["base"], m["base_weights"] = state.x, m["weights"]
        move = (m["step"] if up else -m["step"])[:, None].to(m["weights"])
        m["tried"] = m["base_weights"].scatter_add(1, m["at"][:, None], move)
        if len(self.evaluators) == 1:
            m["tried"] = m["base_weights"]
        return self._craft(state, m["base"], m["tried"])

    def learn(self, state: State, better: Tensor) -> None:
        m = state.memory
        m["weights"] = torch.where(better[:, None], m["tried"], m["weights"])
        m["last"] = torch.where(better, m["at"], m["last"])
        if state.step % 2 == 0:
            m["at"] = (m["at"] + 1) % len(self.evaluators)
            stuck = (m["at"] == m["last"]) & (state.step + 1 > PATIENCE)
            m["step"] = torch.where(stuck, m["step"] / 2, m["step"])

    def _craft(self, state: State, start: Tensor, weights: Tensor) -> Tensor:
        """PGD on the weighted, balanced losses."""
        size = 2 * state.threat.eps / self.iterations
        balanced = weights / state.memory["size"]
        x = start
        for _ in range(self.iterations):
            with torch.enable_grad():
                leaf = x.detach().requires_grad_(True)
                losses = torch.stack([e(leaf, state.active, 1.0).loss for e in self.evaluators], dim=1)
                (gradient,) = torch.autograd.grad((losses * balanced.to(losses)).sum(), leaf)
            x = state.project(x - size * gradient.sign())
        return x


def ensemble(names: Sequence[str], victim: Segmenter) -> list[Segmenter]:
    """The surrogates on the victim's device. Raises InputError when one is the victim, or when none is left."""
    mark = victim.fingerprint()
    chosen = [_surrogate(name, str(victim.device)) for name in names or lab_names(clicks=True)]
    strangers = [model for model in chosen if model.fingerprint() != mark]
    if names and len(strangers) < len(chosen):
        raise InputError(f"A surrogate is {victim.name} itself.", hint="Name other models, or attack it white-box.")
    if not strangers:
        raise InputError(
            "EBAD needs surrogates, and no bundled model differs from the victim.",
            hint="Name models or folders: --set 'surrogates=[\"PATH\"]'",
        )
    return strangers


@lru_cache(maxsize=4)
def _surrogate(name: str, device: str) -> Segmenter:
    """Models are frozen, so a run may share them with the next one."""
    return load(name, device=device)
