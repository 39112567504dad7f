"""The one training loop of all tuning defences: draw, attack, differentiate, step, check, remember the best.

Everything drawn derives from (seed, step), and the whole state is stored every few steps, so a training that was
killed goes on to the result of an uninterrupted one. With `minutes` the number of steps is the machine's affair.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from redsam.data import Dataset
from redsam.errors import InputError
from redsam.models.base import Segmenter
from redsam.seeds import stable_seed
from redsam.tuning.base import Attached
from redsam.tuning.checks import Held, Score, clean_iou, robust_iou
from redsam.tuning.course import Course
from redsam.tuning.lesson_loss import mask_loss
from redsam.tuning.lessons import Lessons
from redsam.tuning.state import State, load, save
from redsam.types import Sample, from_uint8

BETAS, EPSILON = (0.9, 0.999), 1e-8  # Adam's own (Kingma & Ba, 2015)
LONGEST_STEP = 1.0  # the gradient is clipped to this l2 norm
# How far of the way from the original a check tries the numbers, until clean IoU holds; then so many halvings of the
# step back, since what lies between may hold as well.
SHARES = (1.0, 0.7, 0.5, 0.3, 0.15)
HALVINGS = 2


class Watch(Protocol):
    """Told of every step, and of every check with its entry of the history; nothing here may raise but the user."""

    def __call__(self, *, done: float, step: int, loss: float, entry: Mapping[str, Any] | None) -> None: ...


@dataclass(kw_only=True, eq=False)
class Training:
    """One training. home: the state file. settings: what tells it from another."""

    segmenter: Segmenter
    attached: Attached
    course: Course
    data: Dataset
    held: Held
    lr: float
    home: Path
    settings: Mapping[str, Any]
    watch: Watch | None = None
    state: State = field(init=False)
    lessons: Lessons = field(init=False)

    def run(self) -> State:
        """Train from the stored state, if there is one, to the end; the best numbers are then in the model. An
        interruption stores the state. Raises InputError for a state of another training and a loss that is not finite.
        """
        numbers = self.attached.values()
        self.state = load(self.home, self.settings, numbers) if self.home.exists() else State.fresh(numbers)
        self.attached.put(self.state.now)
        self.lessons = Lessons(
            data=self.data, course=self.course, side=self.segmenter.frame(2, 2).side, cursor=self.state.cursor,
            skipped=dict(self.state.skipped),
        )  # fmt: skip
        began = time.monotonic() - 60 * self.state.minutes
        try:
            while not self.state.ended:
                self.state.minutes = (time.monotonic() - began) / 60
                self._turn()
        except KeyboardInterrupt:
            self._store()
            raise
        self._store()
        self.attached.put(self.state.best)
        return self.state

    def _turn(self) -> None:
        """A check where one is due, and then the end or one more step. Nothing that a kill can leave half done."""
        state, done = self.state, self.progress()
        due = done >= 1 or state.step % self.course.check_every == 0
        if not state.history or (due and state.history[-1]["step"] != state.step):
            self._check()
            self._store()
        if done >= 1:
            state.ended = f"after {state.step} steps"
        elif self.course.patience and state.idle >= self.course.patience:
            state.ended = f"early after {state.step} steps, no better for {state.idle} checks"
        else:
            loss = self._step(done)
            if self.state.step % self.course.save_every == 0:
                self._store()
            if self.watch is not None:
                self.watch(done=self.progress(), step=self.state.step, loss=loss, entry=None)

    def progress(self) -> float:
        """Share of the budget that is spent: of steps or of minutes, whichever is more."""
        steps = self.state.step / self.course.steps if self.course.steps else 0.0
        minutes = self.state.minutes / self.course.minutes if self.course.minutes else 0.0
        return max(steps, minutes)

    def _step(self, progress: float) -> float:
        """Draw, attack, differentiate, update; the loss."""
        state, attached = self.state, self.attached
        samples = self.lessons.draw(state.step)
        images = self._attacked(samples)
        encoding = self.segmenter.encode(images)
        prediction = self.segmenter.decode(encoding, [s.prompts for s in samples])
        truth = [s.masks.to(images.device) for s in samples if s.masks is not None]
        loss = mask_loss(prediction, truth)
        if attached.penalty is not None:
            loss = loss + attached.penalty()
        if not bool(torch.isfinite(loss)):
            raise InputError(f"The loss is {loss.item()} at step {state.step}.", hint="Type a smaller --lr.")
        names = list(attached.parameters)
        # Full training meets parameters that no prompt of the mix reaches (the mask prompt's convolutions).
        found = torch.autograd.grad(loss, [attached.parameters[n] for n in names], allow_unused=True)
        zero = {n: torch.zeros_like(p) for n, p in attached.parameters.items()}
        grads = {n: zero[n] if g is None else g for n, g in zip(names, found, strict=True)}
        first, second = self._adam(clipped(grads), self.lr * rate(progress))
        self.state = replace(  # as a whole, so that an interruption finds the state before the step or after it
            state, now=attached.values(), first=first, second=second, step=state.step + 1, cursor=self.lessons.cursor,
            skipped=dict(self.lessons.skipped),
        )  # fmt: skip
        return float(loss.detach())

    def _attacked(self, samples: Sequence[Sample]) -> Tensor:
        """Bx3xHxW of a step: the first share of the batch attacked, the rest as it is."""
        course, step = self.course, self.state.step
        images = torch.stack([s.image for s in samples]).to(self.segmenter.device)
        count = round(course.adversarial * len(samples))
        if not count:
            return images
        attack, chosen = course.recipes[step % len(course.recipes)], samples[:count]
        with self.attached.frozen():
            result = attack.run(
                self.segmenter,
                images[:count],
                [s.prompts for s in chosen],
                threat=course.threat,
                reference=[s.masks for s in chosen if s.masks is not None],
                seeds=[stable_seed(course.seed, "train", step, i) for i in range(count)],
            )
        return torch.cat([from_uint8(result.images), images[count:]])

    @torch.no_grad()
    def _adam(self, grads: Mapping[str, Tensor], lr: float) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Kingma & Ba, 2015, algorithm 1: change the numbers in the model, return the new moments."""
        state, turn = self.state, self.state.step + 1
        first = {n: torch.lerp(state.first[n], g, 1 - BETAS[0]) for n, g in grads.items()}
        second = {n: torch.lerp(state.second[n], g.square(), 1 - BETAS[1]) for n, g in grads.items()}
        for name, p in self.attached.parameters.items():
            mean, spread = first[name] / (1 - BETAS[0] ** turn), second[name] / (1 - BETAS[1] ** turn)
            p.sub_(lr * mean / (spread.sqrt() + EPSILON))
        return first, second

    def _check(self) -> None:
        """Measure, and keep the numbers when they are the best that clean IoU allows."""
        state = self.state
        now = self.attached.values()
        floor = state.history[0]["clean"] - self.course.clean_loss if state.history else -math.inf
        with self.attached.frozen():
            share, clean = self._held_share(now, floor)
            kept = clean >= floor
            robust = robust_iou(self.segmenter, self.held, self.course) if kept else None
            tried = self.attached.values()
            self.attached.put(now)
        entry: dict[str, Any] = {"step": state.step, "minutes": round(state.minutes, 2), "share": share}
        entry |= Score(clean=clean, robust=robust).to_dict()
        state.history.append(entry)
        if robust is not None and robust > state.top.get("robust", -math.inf):
            state.top, state.best, state.idle = entry, tried, 0
        else:
            state.idle += 1
        if self.watch is not None:
            self.watch(done=self.progress(), step=state.step, loss=math.nan, entry=entry)

    def _held_share(self, now: Mapping[str, Tensor], floor: float) -> tuple[float, float]:
        """The largest share tried whose clean IoU is at least the floor, and that IoU; where none is, the smallest. The
        model has the numbers of that share."""

        def clean_at(share: float) -> float:
            self.attached.put(self.attached.shortened(now, share))
            return clean_iou(self.segmenter, self.held, self.course)

        above = share = SHARES[0]
        for share in SHARES:
            clean = clean_at(share)
            if clean >= floor:
                break
            above = share
        if clean >= floor and share < above:
            for _ in range(HALVINGS):
                middle = (share + above) / 2
                tried = clean_at(middle)
                if tried >= floor:
                    share, clean = middle, tried
                else:
                    above = middle
            self.attached.put(self.attached.shortened(now, share))
        return share, clean

    def _store(self) -> None:
        save(self.state, self.settings, self.home)


def rate(progress: float) -> float:
    """Share of the peak rate: a short warm-up, then a cosine down to nothing."""
    if progress < 0.05:
        return (progress + 0.01) / 0.06
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - 0.05) / 0.95)))


def clipped(grads: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gradients of all numbers together no longer than LONGEST_STEP."""
    length = float(nn.utils.get_total_norm(list(grads.values())))
    scale = min(1.0, LONGEST_STEP / (length + 1e-12))
    return {name: g * scale for name, g in grads.items()}
