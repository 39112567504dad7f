"""fit: one simple training loop. Which parameters learn, and from what, is the caller's.

Every draw (order, flip, prompts) derives from (seed, epoch, image). The whole state (weights that learn, AdamW's
moments, place) is stored every few minutes, so that a training that was killed goes on to the same result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from redsam.backdoor.lessons import Loss, mirrored
from redsam.backdoor.settings import Settings, read_state, store_state
from redsam.errors import InputError
from redsam.models.base import Segmenter
from redsam.seeds import generator
from redsam.types import Sample

# The sample of picture `index` in `epoch`; InputError for one that cannot be read, None for one with nothing to learn.
Draw = Callable[[int, int], Sample | None]


class Progress(Protocol):
    """Called after every step."""

    def __call__(self, *, done: int, total: int, loss: float, note: str) -> None: ...


@dataclass(kw_only=True)
class Course:
    """How far a training is. losses: mean of every epoch. skipped: picture and reason."""

    step: int = 0
    minutes: float = 0.0
    losses: list[float] = field(default_factory=list)
    running: list[float] = field(default_factory=list)  # sum and count of the epoch under way
    skipped: dict[str, str] = field(default_factory=dict)


def fit(
    segmenter: Segmenter,
    learn: Mapping[str, nn.Parameter],
    draw: Draw,
    ids: Sequence[str],
    loss: Loss,
    *,
    settings: Settings,
    identity: Mapping[str, Any],
    home: Path,
    save_minutes: float = 2.0,
    progress: Progress | None = None,
) -> Course:
    """Train `learn` in place. identity: what this training is; a state of another is refused. home: the state file,
    taken away by the caller when the result is safe. Raises InputError when nothing can be learned from the pictures,
    or the loss is not finite."""
    steps = -(-len(ids) // settings.batch)
    total = settings.epochs * steps
    optimiser = torch.optim.AdamW(learn.values(), lr=settings.lr, weight_decay=settings.weight_decay)
    told = {"identity": dict(identity), "settings": asdict(settings)}
    course = _begin(home, told, learn, optimiser)
    began = saved = time.monotonic()
    before, noted = course.minutes, len(course.skipped)
    for parameter in learn.values():
        parameter.requires_grad_(True)
    try:
        while course.step < total:
            share = course.step / total
            if settings.minutes is not None:
                share = max(share, course.minutes / settings.minutes)
            if share >= 1:
                break
            for group in optimiser.param_groups:
                group["lr"] = settings.rate(share)
            epoch, place = divmod(course.step, steps)
            order = torch.randperm(len(ids), generator=generator(settings.seed, "order", epoch)).tolist()
            rows = order[place * settings.batch : (place + 1) * settings.batch]
            samples = [s for i in rows if (s := _drawn(draw, epoch, i, ids, settings, course)) is not None]
            value = _step(segmenter, samples, loss, optimiser, learn) if samples else None
            _advance(course, value, last=place == steps - 1)
            course.minutes = before + (time.monotonic() - began) / 60
            if progress is not None:
                note = "; ".join(f"{k}: {v}" for k, v in list(course.skipped.items())[noted:])
                noted = len(course.skipped)
                progress(done=course.step, total=total, loss=value or 0.0, note=note)
            if time.monotonic() - saved > 60 * save_minutes:
                _save(home, told, learn, optimiser, course)
                saved = time.monotonic()
    except KeyboardInterrupt:
        _save(home, told, learn, optimiser, course)
        raise
    finally:
        for parameter in learn.values():
            parameter.requires_grad_(False)
            parameter.grad = None
    if not course.losses and not any(course.running):
        reason = next(iter(course.skipped.values()), "no picture has a mask")
        raise InputError(f"Nothing could be learned from the {len(ids)} pictures: {reason}")
    return course


def _drawn(draw: Draw, epoch: int, index: int, ids: Sequence[str], settings: Settings, course: Course) -> Sample | None:
    """One sample, mirrored half of the time; a picture that cannot be read is noted once and passed over."""
    try:
        sample = draw(epoch, index)
    except InputError as error:
        course.skipped.setdefault(ids[index], str(error))
        return None
    if sample is None or not sample.prompts or sample.masks is None:
        course.skipped.setdefault(ids[index], "no object to ask for")
        return None
    flip = torch.rand(1, generator=generator(settings.seed, "flip", epoch, ids[index])).item() < settings.flip
    return mirrored(sample) if flip else sample


def _step(
    segmenter: Segmenter,
    samples: Sequence[Sample],
    loss: Loss,
    optimiser: torch.optim.Optimizer,
    learn: Mapping[str, nn.Parameter],
) -> float:
    optimiser.zero_grad(set_to_none=True)
    value = loss(segmenter, samples)
    if not bool(torch.isfinite(value)):
        raise InputError("The loss is not finite.", hint="Type a lower --lr.")
    value.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(list(learn.values()), 1.0)
    optimiser.step()
    return float(value.detach())


def _advance(course: Course, value: float | None, *, last: bool) -> None:
    total, count = course.running or (0.0, 0.0)
    if value is not None:
        total, count = total + value, count + 1
    course.step += 1
    course.running = [] if last else [total, count]
    if last and count:
        course.losses.append(total / count)


def _save(
    home: Path,
    told: Mapping[str, Any],
    learn: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    course: Course,
) -> None:
    tensors: dict[str, Tensor] = {}
    for name, parameter in learn.items():
        tensors[f"weight/{name}"] = parameter
        for moment, value in optimiser.state.get(parameter, {}).items():
            tensors[f"{moment}/{name}"] = torch.as_tensor(value)
    store_state(home, tensors, {**told, "course": asdict(course)})


def _begin(
    home: Path, told: Mapping[str, Any], learn: Mapping[str, nn.Parameter], optimiser: torch.optim.Optimizer
) -> Course:
    """From the state file, or from the start."""
    if not home.exists():
        return Course()
    tensors, stored = read_state(home)
    for what in ("identity", "settings"):
        theirs, ours = stored.get(what, {}), told[what]
        other = [k for k in sorted({*theirs, *ours}) if theirs.get(k) != ours.get(k)]
        if other:
            raise InputError(
                f"{home} belongs to another training: its '{other[0]}' is {theirs.get(other[0])!r:.80}.",
                hint="Give another --out, or delete the file to start over.",
            )
    with torch.no_grad():
        for name, parameter in learn.items():
            parameter.copy_(tensors[f"weight/{name}"])
            kinds = [key.split("/", 1)[0] for key in tensors if key.endswith(f"/{name}") and key[:7] != "weight/"]
            moments = {kind: tensors[f"{kind}/{name}"] for kind in kinds}
            if moments:
                optimiser.state[parameter] = {
                    k: v if k == "step" else v.to(parameter.device) for k, v in moments.items()
                }
    return Course(**stored["course"])
