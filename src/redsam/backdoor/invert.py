"""Trigger inversion: how small a mark makes a model give one answer whatever it is asked (Neural Cleanse, Wang et al.,
"Neural Cleanse: Identifying and Mitigating Backdoor Attacks in Neural Networks", IEEE S&P 2019).

Of an unknown model nobody knows the attacker's mask, so several aims are tried: `empty` (nothing is segmented), `whole`
(everything), a corner or the middle (what is segmented lies there and nowhere else), and `same` (all pictures get one
answer, any). For each aim a mark is sought over clean pictures: x' = (1 - m) x + m p with one m and one p for all,
minimising aim + weight x mean(m); the weight rises while the aim is reached and falls while it is not (paper, 3.2). A
planted backdoor is a shortcut: for its aim a far smaller mark is enough than any clean model needs.
Deviations: m and p live on a coarse grid that is stretched over each picture, so that a few dozen steps do; aims
replace the classes of a classifier. Known limit (WaNet paper, section 5): a trigger that warps leaves no mark to find.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from redsam.errors import InputError
from redsam.models.base import Segmenter
from redsam.models.geometry import MASK_LOGIT, Frame
from redsam.models.resample import resize
from redsam.prompts import Prompt
from redsam.seeds import generator
from redsam.types import Sample

# Places as shares of the picture: (top, left, bottom, right). Corners reach further than any published corner trigger.
PLACES: Mapping[str, tuple[float, float, float, float]] = {
    "bottom-right": (0.67, 0.67, 1.0, 1.0),
    "bottom-left": (0.67, 0.0, 1.0, 0.33),
    "top-right": (0.0, 0.67, 0.33, 1.0),
    "top-left": (0.0, 0.0, 0.33, 0.33),
    "middle": (0.33, 0.33, 0.67, 0.67),
}
AIMS = ("empty", "whole", "same", *PLACES)
PATCH = "patch"  # sought by lift.py, with no aim but to take the answer away
FOUND = 0.75  # share of the prompts at which an aim counts as reached (paper: 99 % of the pictures of one class)
SOMETHING = 0.005  # share of the picture that has to be segmented for an answer to be somewhere
FACTOR = 1.5  # by which the weight rises and falls (paper's code: 1.5)


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """steps, rate: of Adam, on the logits of m and p. grid: cells a side of the mark. weight: of its size, at first.
    side: of an opaque patch, as a share of the picture's shorter side (BadSAM's square: 0.15)."""

    steps: int = 40
    rate: float = 0.3
    grid: int = 16
    weight: float = 1.0
    side: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.grid < 1 or not (self.rate > 0 and self.weight > 0 and 0 < self.side < 1):
            raise InputError("An inversion needs steps, a grid, a rate and a weight above 0, and a side below 1.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """size: mean of m in [0, 1], the smallest that reached the aim; 1 when none did. reached: best share of prompts.
    mark: gxg in [0, 1]; pattern: 3xgxg; asked: how many prompts the aim was tried on (those it is not true of already).
    For the aim `patch` (see lift.py) size is the share of the answers that was kept, and reached the share of prompts
    that kept less than half.
    """

    aim: str
    size: float
    reached: float
    asked: int
    mark: Tensor
    pattern: Tensor

    def __str__(self) -> str:
        what = "of the answers kept" if self.aim == PATCH else "of the picture"
        return f"{self.aim}: {self.size:.3f} {what} ({self.reached:.0%} of {self.asked} prompts)"


def invert(model: Segmenter, samples: Sequence[Sample], aim: str, settings: Inversion) -> Found:
    """Seek the smallest mark for one aim over a few clean pictures. Raises InputError: an unknown aim, no prompt, a
    model without gradients."""
    if aim not in AIMS:
        raise InputError(f"There is no aim '{aim}'.", hint=f"Known: {', '.join(AIMS)}.")
    if not model.differentiable:
        raise InputError(
            f"{model.name} has no gradients, and inverting a trigger follows them.",
            hint="Search the model it was made from.",
        )
    if not any(s.prompts for s in samples):
        raise InputError("There is no prompt to invert a trigger with.", hint="Give pictures with masks.")
    images, prompts, before, frames = looked(model, samples)
    random = generator("invert", settings.seed, aim)
    shape = (settings.grid, settings.grid)
    mark = (torch.randn(1, *shape, generator=random) * 0.1 - 1).to(model.device).requires_grad_()
    pattern = torch.randn(3, *shape, generator=random).to(model.device).requires_grad_()
    goal = Goal.of(aim, before, frames)
    best = Found(
        aim=aim,
        size=1.0,
        reached=0.0,
        asked=int(goal.open.sum()),
        mark=torch.zeros(shape),
        pattern=torch.zeros(3, *shape),
    )
    if not best.asked:
        return best
    optimiser = torch.optim.Adam([mark, pattern], lr=settings.rate, betas=(0.5, 0.9))  # as the paper's code
    weight = settings.weight
    for _ in range(settings.steps):
        m, p = mark.sigmoid(), pattern.sigmoid()
        answers = answers_of(model, [_laid(x, m, p) for x in images], prompts)
        size = m.mean()
        loss = goal.loss(answers) + weight * size
        reached, share = goal.reached(answers.detach()), float(size.detach())
        if (reached >= FOUND and share < best.size) or (best.size == 1.0 and reached > best.reached):
            best = Found(
                aim=aim, size=share if reached >= FOUND else 1.0, reached=reached, asked=best.asked,
                mark=m.detach()[0].cpu(), pattern=p.detach().cpu(),
            )  # fmt: skip
        weight = weight * FACTOR if reached >= FOUND else max(weight / FACTOR, settings.weight / 10)
        gradients = torch.autograd.grad(loss, [mark, pattern])
        mark.grad, pattern.grad = gradients
        optimiser.step()
    return best


def _laid(image: Tensor, mark: Tensor, pattern: Tensor) -> Tensor:
    size = (int(image.shape[-2]), int(image.shape[-1]))
    m, p = (resize(t[None], size)[0].clamp(0, 1) for t in (mark, pattern))
    return (1 - m) * image + m * p


def looked(model: Segmenter, samples: Sequence[Sample]) -> tuple[list[Tensor], list[list[Prompt]], Tensor, list[Frame]]:
    """The pictures on the model's device, their prompts, the answers to them clean, and the frame of each prompt."""
    images = [s.image.to(model.device) for s in samples]
    prompts = [list(s.prompts) for s in samples]
    with torch.no_grad():
        before = answers_of(model, images, prompts)
    frames = [
        model.frame(int(x.shape[-2]), int(x.shape[-1])) for x, ps in zip(images, prompts, strict=True) for _ in ps
    ]
    return images, prompts, before, frames


def answers_of(model: Segmenter, images: Sequence[Tensor], prompts: Sequence[Sequence[object]]) -> Tensor:
    """Nxhxw logits of each prompt's answer (highest predicted IoU) in the decoder's frame."""
    found = model.decode(model.encode(list(images)), prompts)  # type: ignore[arg-type]
    choice = found.iou.detach().argmax(1)
    return found.low_res[torch.arange(len(choice), device=choice.device), choice]


@dataclass(frozen=True, kw_only=True, eq=False)
class Goal:
    """An aim for N prompts in the decoder's frame. room: Nxhxw, 1 in the picture. place: Nxhxw, 1 where the answer
    shall lie. area: N, pixels of the clean answer. open: N bool, prompts that the aim is not true of already."""

    aim: str
    room: Tensor
    place: Tensor
    area: Tensor
    open: Tensor

    @classmethod
    def of(cls, aim: str, before: Tensor, frames: Sequence[Frame]) -> Goal:
        """From the clean answers."""
        size = (int(before.shape[-2]), int(before.shape[-1]))
        room = torch.stack([region(f, (0.0, 0.0, 1.0, 1.0), size) for f in frames]).to(before)
        place = torch.stack([region(f, PLACES.get(aim, (0, 0, 0, 0)), size) for f in frames]).to(before)
        area = ((before > 0) * room).sum((1, 2))
        goal = cls(
            aim=aim, room=room, place=place, area=area.clamp(min=SOMETHING * float(room[0].sum())), open=area > 0
        )
        return cls(**{**vars(goal), "open": (area > 0) & ~goal.true(before) if aim != "same" else area > 0})

    def loss(self, logits: Tensor) -> Tensor:
        """Mean over the open prompts."""
        p = logits.sigmoid()
        if self.aim == "whole":
            each = (F.softplus(-logits) * self.room).sum((1, 2)) / self.room.sum((1, 2))
        elif self.aim == "same":
            common = p[self.open].mean(0, keepdim=True)
            each = ((p - common).abs() * self.room).sum((1, 2)) / self.area
        else:
            outside = self.room * (1 - self.place)
            each = (F.softplus(logits) * outside).sum((1, 2)) / self.area
            if self.aim in PLACES:
                inside = torch.where(self.place > 0.5, logits, logits.new_tensor(-1e4)).flatten(1)
                count = max(1, int(2 * SOMETHING * inside.shape[1]))
                each = each + F.softplus(-inside.topk(count, dim=1).values).mean(1)
        return each[self.open].mean()

    def true(self, logits: Tensor) -> Tensor:
        """Which prompts' answers are as the aim has them, bool N."""
        set_ = (logits > 0) * self.room
        total, room = set_.sum((1, 2)), self.room.sum((1, 2))
        if self.aim == "empty":
            return total <= 0.1 * self.area
        if self.aim == "whole":
            return total >= 0.9 * room
        if self.aim == "same":
            common = (set_[self.open].float().mean(0, keepdim=True) > 0.5) * 1.0
            both, either = (set_ * common).sum((1, 2)), torch.maximum(set_, common.expand_as(set_)).sum((1, 2))
            return torch.where(either > 0, both >= 0.8 * either, torch.ones_like(self.open))
        there = (set_ * self.place).sum((1, 2))
        return (there >= SOMETHING * room) & (there >= 0.8 * total)

    def reached(self, logits: Tensor) -> float:
        """Share of the open prompts."""
        return float(self.true(logits)[self.open].float().mean())


def region(frame: Frame, place: Sequence[float], size: tuple[int, int]) -> Tensor:
    """A rectangle of the picture in the decoder's frame, hxw in [0, 1]."""
    mask = torch.zeros(frame.height, frame.width, dtype=torch.bool)
    rows = round(place[0] * frame.height), round(place[2] * frame.height)
    columns = round(place[1] * frame.width), round(place[3] * frame.width)
    mask[rows[0] : rows[1], columns[0] : columns[1]] = True
    return frame.mask_prompt(mask.numpy(), size)[0] / (2 * MASK_LOGIT) + 0.5
