"""SEA, Semantic Ensemble Attack: four APGD runs with losses made for masks; the worst wins (Croce et al., 2024)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from redsam import registry
from redsam.attacks.apgd import APGD
from redsam.attacks.base import Attack
from redsam.attacks.goal import Goal, per_image
from redsam.attacks.gradient import follow
from redsam.attacks.loop import Trace
from redsam.attacks.parts import given
from redsam.attacks.task import Task
from redsam.errors import InputError
from redsam.registry import register
from redsam.seeds import stable_seed

SEA_PAPER = "https://arxiv.org/abs/2306.12941"
LOSSES = ("masked-ce", "segpgd", "js", "masked-logit")
# Section 3: radii in eps, each with its share of the iterations; every stage starts from the last, projected.
RADII = ((2.0, 0.3), (1.5, 0.3), (1.0, 0.4))


# --- the losses that SEA brings ------------------------------------------------------------------------------------
@register("objective", "masked-ce", on="mask", aim="away", paper="SEA (Croce et al.)", year=2024, url=SEA_PAPER)
def masked_ce(logits: Tensor, reference: Tensor, *, progress: float = 1.0) -> Tensor:
    """Minus the binary cross-entropy of the pixels that are still right, averaged over all pixels: what is wrong
    already has no gradient. Deviation: binary, as SAM has one logit per pixel."""
    truth = reference.to(logits.dtype)
    loss = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return -(loss * _right(logits, reference)).flatten(1).mean(1)


@register("objective", "js", on="mask", aim="away", paper="SEA (Croce et al.)", year=2024, url=SEA_PAPER)
def js(logits: Tensor, reference: Tensor, *, progress: float = 1.0) -> Tensor:
    """Minus the Jensen-Shannon divergence between a pixel's two probabilities and its reference, mean over pixels.

    With q the probability of the right class it is (q log q - (1 + q) log(1 + q) + 2 log 2) / 2, from 0 (q = 1) to
    log 2 (q = 0); its gradient fades on both sides, so that neither sure nor lost pixels dominate.
    """
    towards = _signed(logits, reference)
    q = towards.sigmoid()
    divergence = (q * F.logsigmoid(towards) - (1 + q) * torch.log1p(q)) / 2 + math.log(2)
    return -divergence.flatten(1).mean(1)


@register("objective", "masked-logit", on="mask", aim="away", paper="SEA (Croce et al.)", year=2024, url=SEA_PAPER)
def masked_logit(logits: Tensor, reference: Tensor, *, progress: float = 1.0) -> Tensor:
    """Mean normalised logit of the right class over the pixels that are still right; sure pixels pull as hard as any.

    Deviation: the paper divides the logits of a pixel by their norm; with two classes from one logit that is +-1 with
    no gradient, so the logits are divided by their root mean square over the mask. Blind to the logits' scale.
    """
    size = logits.square().flatten(1).mean(1).clamp_min(1e-12).sqrt()
    return (_signed(logits, reference) * _right(logits, reference)).flatten(1).mean(1) / size


def _signed(logits: Tensor, reference: Tensor) -> Tensor:
    """Logits of the right class: above 0 where the pixel is right."""
    return torch.where(reference.bool(), logits, -logits)


def _right(logits: Tensor, reference: Tensor) -> Tensor:
    return ((logits > 0) == reference.bool()).to(logits.dtype)


# --- the attack ----------------------------------------------------------------------------------------------------
@register("attack", "sea", year=2024, url=SEA_PAPER, norms=("linf",), kind="white-box",
          paper="Towards Reliable Evaluation and Fast Training of Robust Semantic Segmentation Models (Croce et al.)",
          knowledge=("white-box", "transfer"), cost="4 x iterations gradients")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class SEA(Attack):
    """Four APGD runs (`masked-ce`, `segpgd`, `js`, `masked-logit`) from random starts; delivered is the iterate of
    lowest pixel accuracy against the reference, mean over an image's prompts, whatever the losses say.

    300 iterations a run as published: 30 % in a ball of 2 eps, 30 % in 1.5 eps, 40 % in eps, each stage from the best
    of the one before, projected; only iterates of the last stage count. keep_best False delivers the best of the last
    run by its own loss. Deviations: those of the losses and of `apgd`; an image that reaches stop_at is delivered as
    it is and leaves out the runs that follow. Trace.losses: pixel accuracies of the last stages' iterates, run after
    run, which is fewer rows than steps. losses: some of the four, in another order, or one alone; a run draws the same
    start whatever runs beside it.
    """

    iterations: int = 300
    losses: tuple[str, ...] = LOSSES

    def __post_init__(self) -> None:
        given = (self.losses,) if isinstance(self.losses, str) else tuple(self.losses)  # a log has lists
        object.__setattr__(self, "losses", given)
        wrong = [name for name in given if name not in LOSSES]
        if wrong or not given or len(set(given)) < len(given):
            raise InputError(
                f"losses={','.join(given) or 'nothing'} cannot be run.", hint=f"Each once, of {', '.join(LOSSES)}."
            )

    def needs_reference(self) -> bool:
        """The losses compare with it."""
        return True

    def search(self, task: Task) -> Trace:
        """The runs; each image's worst iterate of them all."""
        self._check(task.threat.queries)
        ledger = Ledger.of(task)
        out, left = task.clean.clone(), list(range(len(task)))
        gradients = forwards = 0
        steps, flags = [0] * len(task), [""] * len(task)
        for number, name in enumerate(self.losses):
            run = self._run(name, task.subset(left), ledger, left)
            gradients, forwards = gradients + run.gradients, forwards + run.forwards
            out[left] = run.images if not self.keep_best else ledger.worst[left]
            going = []
            for row, image in enumerate(left):
                steps[image] += run.steps[row]
                # A run that went wrong is no failure of the image while another did not.
                flags[image] = run.flags[row] if number == 0 or not run.flags[row] else flags[image]
                if self.stop_at is not None and run.steps[row] < self.iterations and not run.flags[row]:
                    out[image] = run.images[row]
                else:
                    going.append(image)
            left = going
            if not left:
                break
        return Trace(
            images=out, losses=torch.stack(ledger.rows).cpu(), steps=tuple(steps), gradients=gradients,
            forwards=forwards, flags=tuple(flags),
        )  # fmt: skip

    def _run(self, name: str, task: Task, ledger: Ledger, places: list[int]) -> Trace:
        """One loss through its stages: the last one's trace with the passes and steps of all. places: where the task's
        images are in the whole batch."""
        objective = registry.get("objective", name)
        seeds = [stable_seed(seed, "sea", name) for seed in task.seeds]
        task, threat = replace(task, seeds=seeds), task.threat
        trace: Trace | None = None
        for radius, count in stages(self.iterations):
            here = replace(threat, eps=min(radius * threat.eps, 1.0) if threat.norm == "linf" else radius * threat.eps)
            last = radius == RADII[-1][0]
            goal = Goal(
                task=task, objective=objective, select=self.select, stop_at=self.stop_at if last else None,
                look=ledger.watch(places) if last else None,
            )  # fmt: skip
            parts = APGD(steps=count).parts(here)
            if trace is not None:
                parts = replace(parts, start=given(trace.images))
            found = follow(goal, replace(task, threat=replace(here, queries=None)), parts)
            trace = found if trace is None else _after(trace, found)
        assert trace is not None  # there is always a last stage
        return trace

    def _check(self, queries: int | None) -> None:
        if self.iterations < 1:
            raise InputError(f"An attack of {self.iterations} iterations does nothing.", hint="Give at least 1.")
        needed = len(self.losses) * (self.iterations + len(stages(self.iterations)))
        if queries is not None and needed > queries:
            raise InputError(
                f"{self.iterations} iterations of each loss need {needed} forward passes, the threat grants {queries}.",
                hint="Give fewer iterations or more queries.",
            )


def stages(iterations: int) -> list[tuple[float, int]]:
    """(radius in eps, steps) of each stage that has a step; the last takes what rounding down leaves."""
    counts = [int(share * iterations + 1e-9) for _, share in RADII[:-1]]
    counts.append(iterations - sum(counts))
    return [(radius, count) for (radius, _), count in zip(RADII, counts, strict=True) if count]


def _after(before: Trace, last: Trace) -> Trace:
    """The last stage's trace with what was spent before it."""
    return replace(
        last, flags=tuple(b or a for a, b in zip(before.flags, last.flags, strict=True)),
        steps=tuple(a + b for a, b in zip(before.steps, last.steps, strict=True)),
        gradients=before.gradients + last.gradients, forwards=before.forwards + last.forwards,
    )  # fmt: skip


@dataclass(kw_only=True, eq=False)
class Ledger:
    """accuracy: B, lowest pixel accuracy seen, and worst: Bx3xHxW, the iterate that had it. rows: accuracies of all
    iterates looked at, one B per pass, nan for images that had stopped."""

    accuracy: Tensor
    worst: Tensor
    rows: list[Tensor]

    @classmethod
    def of(cls, task: Task) -> Ledger:
        """Nothing seen yet."""
        nothing = torch.full((len(task),), float("inf"), device=task.clean.device)
        return cls(accuracy=nothing, worst=task.clean.clone(), rows=[])

    def watch(self, places: list[int]) -> Callable[[Tensor, Sequence[int], Tensor, Tensor, Tensor], None]:
        """A `Goal.look` for images at these places of the batch; of equal iterates the first stays."""

        def look(images: Tensor, active: Sequence[int], logits: Tensor, truth: Tensor, owner: Tensor) -> None:
            at = torch.tensor([places[i] for i in active], device=images.device)
            accuracy = per_image(_right(logits, truth).float().flatten(1).mean(1), owner, len(active))
            better = accuracy < self.accuracy[at]
            self.worst[at] = torch.where(better[:, None, None, None], images, self.worst[at])
            self.accuracy[at] = torch.where(better, accuracy, self.accuracy[at])
            self.rows.append(torch.full_like(self.accuracy, float("nan")).scatter(0, at, accuracy))

        return look
