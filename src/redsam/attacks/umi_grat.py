"""UMI-GRAT: attack fine-tuned descendants of SAM from SAM alone (Xia et al., NeurIPS 2024)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from redsam.attacks.loop import Evaluate, Evaluation, Parts, Rule, State, Trace
from redsam.attacks.task import Task
from redsam.attacks.universal import Lesson, Memory, UniversalAttack, rows
from redsam.models.features import tap
from redsam.models.values import Encoding
from redsam.registry import register
from redsam.threat import Threat

# UMI, as in the authors' code: sign steps of 0.025/255 until the MSE of the features exceeds 0.0025; blocks shuffled
# with probability 0.3.
META_STEP, ENOUGH, SHUFFLED = 0.025 / 255, 0.0025, 0.3
# GRAT: 4 of 6 intermediate layers, differences times N(1, 0.5); at the first step delta becomes 2.5 delta + UMI.
LAYERS, CHOSEN, SPREAD, LEAP = 6, 4, 0.5, 2.5


@register("attack", "umi-grat", paper="Transferable Adversarial Attacks on SAM and Its Downstream Models (Xia et al.)",
          year=2024, url="https://arxiv.org/abs/2410.20197", norms=("linf",), kind="universal", features="blocks",
          knowledge=("white-box", "transfer"), cost="steps gradients")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class UMIGRAT(UniversalAttack):
    """UMI, universal meta initialisation: a perturbation learned like Reptile, each image taking a few steps that raise
    the MSE of its features, the perturbation following. GRAT, gradient-robust attack: momentum steps on the L1 distance
    of the final features plus noisy distances of intermediate ones, from 2.5 delta + UMI. With an artefact it is
    GRAT from there (steps=0 lays the artefact onto the image and no more), without one GRAT alone.

    Published (code): eps 10/255; UMI 4 rounds, 3 steps of 0.025/255 per image, rate eps / (step * 3 * images); GRAT 10
    steps of 2/255, momentum 0.5. Inferred: the start (uniform within one grey level, since the gradient is zero at the
    clean image), the mean instead of the sum in the L1 distance, the weight 1 of the robust term, its layers (spread
    evenly over the blocks, each difference divided by the mean size of the clean layer), and the update (the momentum
    divided by its mean size, clamped to [-1, 1]). Deviation: of BSR only the shuffling of blocks, 2 x 2 at random cuts,
    not the rotation. Layers and noise are drawn per image and step; iterates are ranked by the final features alone.
    `keep_best` delivers the best iterate; False is as published.
    """

    steps: int = 10
    step_size: float = 2 / 255
    epochs: int = 4
    inner: int = 3
    decay: float = 0.5
    robust: float = 1.0

    begins_at_random: ClassVar[bool] = True

    def search(self, task: Task) -> Trace:
        if self.artefact is None:
            return self.from_image(task, self.parts(task.threat))
        artefact = self.loaded(task.threat)
        if self.steps == 0:
            return self.apply(task, artefact)
        umi = artefact.on((task.clean.shape[-2], task.clean.shape[-1]), self.fit).to(task.clean)
        return self.from_image(task, replace(self.parts(task.threat), rule=self.rule(umi)))

    def begin(self, size: int, eps: float, generator: torch.Generator) -> Tensor:
        """Within one grey level."""
        return (torch.rand((3, size, size), generator=generator) * 2 - 1) * min(eps, 1 / 255)

    def parts(self, threat: Threat) -> Parts:
        return Parts(
            steps=self.steps, start=_faint, rule=self.rule(None),
            gradients=(lambda gradient, state: self.smooth(gradient, state.memory),), keep_best=self.keep_best,
        )  # fmt: skip

    def smooth(self, gradient: Tensor, memory: Memory) -> Tensor:
        """MI: decay * m + gradient / mean size."""
        size = gradient.abs().flatten(1).mean(1).clamp_min(1e-12)[:, None, None, None]
        total = gradient / size
        if "momentum" in memory:
            total = total + self.decay * memory["momentum"]
        memory["momentum"] = total
        return total

    def rule(self, umi: Tensor | None) -> Rule:
        """Steps in proportion to the momentum, at most `step_size`; after the first the leap."""

        def step(direction: Tensor, state: State) -> Tensor:
            size = direction.abs().flatten(1).mean(1).clamp_min(1e-12)[:, None, None, None]
            x = state.x - self.step_size * (direction / size).clamp(-1, 1)
            if state.step > 0:
                return x
            delta = LEAP * (state.project(x) - state.clean)
            return state.clean + (delta if umi is None else delta + umi)

        return step

    def evaluator(self, task: Task, memory: Memory) -> Evaluate:
        """GRAT's loss."""
        layers = _spread(len(task.segmenter.stages()))
        generators = task.generators("umi-grat")
        with torch.no_grad():
            clean, inside = _tapped(task, task.clean, layers)

        def evaluate(images: Tensor, active: Sequence[int], progress: float) -> Evaluation:
            encoding, blocks = _tapped(task, images, layers)
            far = (encoding.features - rows(clean.features, active)).abs().float().flatten(1).mean(1)
            loss = -far
            if torch.is_grad_enabled():
                drawn = [generators[i] for i in active]
                before = [rows(block, active) for block in inside]
                loss = loss - self.robust * robust_term(blocks, before, drawn)
            return Evaluation(loss=loss, rank=-far.detach())

        return evaluate

    def learn(self, delta: Tensor, lesson: Lesson, memory: Memory) -> Tensor:
        """UMI: a few steps from the universal perturbation, which then follows."""
        task, generator = lesson.task, lesson.task.generators("umi")[0]
        with torch.no_grad():
            clean = task.encode(task.clean).features

        def evaluate(images: Tensor, active: Sequence[int], progress: float) -> Evaluation:
            shuffle = shuffling(generator, images)
            # The clean image is shuffled alike, so that the distance is the perturbation's doing.
            target = clean if shuffle is None else task.encode(shuffle(task.clean)).features.detach()
            seen = images if shuffle is None else shuffle(images)
            far = (task.encode(seen).features - target).float().square().flatten(1).mean(1)
            return Evaluation(loss=-far, rank=-far.detach())

        own = delta
        for step in range(self.inner):
            result, gradient = lesson.slope(evaluate, own, step / self.inner)
            if float(result.rank) < -ENOUGH:
                break
            own = lesson.clip(own - META_STEP * gradient.sign())
        rate = task.threat.eps / (META_STEP * self.inner * lesson.count)
        return lesson.clip(delta + rate * (own - delta))


def _faint(state: State) -> Tensor:
    draws = [torch.rand(state.clean.shape[1:], generator=g) for g in state.generators]
    return state.clean + ((torch.stack(draws) * 2 - 1) / 255).to(state.clean)


def _spread(count: int) -> tuple[int, ...]:
    """Up to 6 blocks, evenly over all but none twice."""
    return tuple(sorted({(i + 1) * count // LAYERS - 1 for i in range(LAYERS)} & set(range(count))))


def _tapped(task: Task, images: Tensor, layers: Sequence[int]) -> tuple[Encoding, list[Tensor]]:
    encoding, blocks = tap(task.segmenter, images, layers)
    return task.framed(encoding), blocks


def robust_term(blocks: Sequence[Tensor], clean: Sequence[Tensor], generators: Sequence[torch.Generator]) -> Tensor:
    """n: mean over 4 layers, drawn per image, of the mean of |difference| / mean |clean layer| times N(1, 0.5)."""
    terms = []
    for block, before in zip(blocks, clean, strict=True):
        blur = torch.stack([torch.randn(block.shape[1:], generator=g) for g in generators]).to(block)
        size = before.abs().float().flatten(1).mean(1).clamp_min(1e-12)
        far = ((block - before).abs() * (1 + SPREAD * blur)).float().flatten(1).mean(1)
        terms.append(far / size)
    count = min(CHOSEN, len(blocks))
    chosen = torch.zeros(len(generators), len(blocks))
    for row, generator in enumerate(generators):
        chosen[row, torch.randperm(len(blocks), generator=generator)[:count]] = 1 / count
    return (torch.stack(terms, 1) * chosen.to(terms[0])).sum(1)


def shuffling(generator: torch.Generator, images: Tensor) -> Callable[[Tensor], Tensor] | None:
    """With probability 0.3 a function that swaps the halves of ...xHxW images on either side of a random row and of a
    random column; None otherwise."""
    draws = torch.rand(3, generator=generator)
    if float(draws[0]) >= SHUFFLED:
        return None
    shifts = [int(n * float(d)) for n, d in zip(images.shape[-2:], draws[1:], strict=True)]
    return lambda x: torch.roll(x, shifts, dims=(-2, -1))
