"""Signs of gradient masking: a model that looks robust because gradients mislead the attack, not because it is.

Each check is a function over numbers and returns a `Finding`; `masking_report` measures the numbers on a model. Mean
IoU with the clean prediction and objectives alike: lower is a stronger attack. Sources: Athalye, Carlini & Wagner 2018,
Obfuscated Gradients ("Identifying obfuscated & masked gradients"); Carlini et al. 2019, On Evaluating Adversarial
Robustness; Tramer et al. 2020, On Adaptive Attacks. They give the signs in words; every limit is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from redsam import registry
from redsam.attacks.apgd import APGD
from redsam.attacks.base import Attack
from redsam.attacks.check import blind
from redsam.attacks.compose import Member, overlap
from redsam.attacks.fgsm import FGSM
from redsam.attacks.goal import Goal
from redsam.attacks.parts import SMALL
from redsam.attacks.pgd import PGD
from redsam.attacks.task import Task
from redsam.errors import InputError
from redsam.models.base import Segmenter
from redsam.prompts import Prompt
from redsam.registry import Entry
from redsam.seeds import generator
from redsam.threat import Threat
from redsam.types import check_image

# A trained encoder spreads gradient to every pixel; half of them without any is not by chance.
ZERO_SHARE = 0.5
MARGIN = 0.05  # of IoU: by less than this one attack beats another by luck on a few images
SOLVED = 0.1  # IoU at which nothing is left to attack (ASR@10)
TOLERANCE = 1e-3  # of the larger number: a gain below this share is none
DRAWS = 10  # random images per image, of which the strongest counts
UNBOUNDED_STEP = 4 / 255  # 100 of them cross the range of an image


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check: whether its sign was seen, the numbers it was decided on, and what the sign means."""

    name: str
    triggered: bool
    numbers: Mapping[str, float]
    meaning: str


@dataclass(frozen=True, kw_only=True)
class MaskingReport:
    """Findings on `images` images with `prompts` prompts at linf `eps`; skipped: prompts whose clean mask is empty.
    Forwards include those that measure; a gradient counts as a forward too."""

    model: str
    eps: float
    images: int
    prompts: int
    skipped: int
    gradients: int
    forwards: int
    findings: tuple[Finding, ...]

    @property
    def triggered(self) -> tuple[str, ...]:
        """Names of the checks that warn; none is no proof of honest gradients."""
        return tuple(f.name for f in self.findings if f.triggered)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self) | {"triggered": list(self.triggered)}


# --- checks over numbers -------------------------------------------------------------------------------------------
def dead_gradients(*, zero: float, non_finite: float) -> Finding:
    """Shares of the image's values whose gradient at the clean image is zero, and not a finite number."""
    return Finding(
        name="dead gradients", triggered=zero > ZERO_SHARE or non_finite > 0,
        numbers={"zero_share": zero, "non_finite_share": non_finite, "limit": ZERO_SHARE},
        meaning="The loss is flat or breaks where the attack starts: a step that is not differentiable, or saturation. "
        "Replace that step in the backward pass (BPDA), or attack the logits before it.",
    )  # fmt: skip


def black_box_wins(*, white: float, black: float, margin: float = MARGIN) -> Finding:
    """IoU left by the best gradient attack and by the best query attack at the same eps."""
    return Finding(
        name="black box beats white box", triggered=black < white - margin,
        numbers={"iou_white_box": white, "iou_black_box": black, "margin": margin},
        meaning="An attack that knows less does more harm: gradients do not lead where harm is.",
    )  # fmt: skip


def steps_do_not_help(*, few: float, many: float, noise: float, left: float) -> Finding:
    """few, many, noise: what 10 and 100 steps and random noise reach of the quantity the attack minimises. left: IoU
    after many steps. No sign when nothing is left, nor when few steps already beat noise: that attack has converged."""
    stuck = not _lower(many, few) and not _lower(few, noise)
    return Finding(
        name="more steps do not help", triggered=left > SOLVED and stuck,
        numbers={"objective_few_steps": few, "objective_many_steps": many, "objective_noise": noise, "iou_left": left},
        meaning="Ten times the steps gain nothing, and the first ones were no better than noise: the gradient points "
        "nowhere, so the number of steps says nothing about robustness.",
    )  # fmt: skip


def unbounded_fails(*, left: float, limit: float = SOLVED) -> Finding:
    """IoU left when any pixel may take any value (linf eps 1)."""
    return Finding(
        name="unbounded attack fails", triggered=left > limit, numbers={"iou_left": left, "limit": limit},
        meaning="With any image allowed every mask can be destroyed; an attack that does not manage is not working.",
    )  # fmt: skip


def noise_suffices(*, noise: float, step: float, left: float = 1.0) -> Finding:
    """What the strongest of some random images and one gradient step of the same size reach of the quantity the attack
    minimises. left: IoU after the step; no sign when nothing is left to attack."""
    return Finding(
        name="noise as strong as a gradient step", triggered=left > SOLVED and not _lower(step, noise),
        numbers={"objective_noise": noise, "objective_step": step, "iou_left": left},
        meaning="The gradient is no better a direction than chance.",
    )  # fmt: skip


def _lower(value: float, than: float) -> bool:
    """By more than the tolerance; a value that is not a number is lower than nothing."""
    return value < than - TOLERANCE * max(abs(value), abs(than))


# --- the driver ----------------------------------------------------------------------------------------------------
def masking_report(
    segmenter: Segmenter,
    images: Sequence[Tensor],
    prompts: Sequence[Sequence[Prompt]],
    *,
    eps: float = 8 / 255,
    seeds: Sequence[int] | None = None,
    objective: str = "vanish",
    few: int = 10,
    many: int = 100,
    queries: int = 500,
    black_box: Attack | None = None,
) -> MaskingReport:
    """All checks on float 3xHxW images on the 8-bit lattice, sizes may differ, each with its prompts; linf eps.

    Attacks lower a mask `objective` of an image's prompts together; the reference is the clean prediction, prompts
    where that is empty are left out. Per image some 2 many + few gradients and `queries` forward passes. black_box:
    default Square. The white box is the best of PGD with few and many steps and APGD with many.
    Raises InputError for a model without gradients, an eps of no grey level, or when no prompt has a mask.
    """
    if not segmenter.differentiable:
        raise blind("pgd", segmenter)
    if not 1 / 255 - 1e-6 <= eps < 1:
        raise InputError(f"eps {eps:g} tells nothing of masking.", hint="Give at least one grey level: --eps 8/255")
    if len(images) != len(prompts) or not images:
        raise InputError(f"{len(images)} images came with {len(prompts)} lists of prompts.")
    names = {a.name: a for a in registry.entries("objective")}
    if objective not in names or names[objective].meta.get("on") != "mask":
        raise InputError(f"'{objective}' is no objective on masks.", hint="Leave it at vanish.")
    attacks: dict[str, Attack] = {
        "few": PGD(steps=few, objective=objective),
        "many": PGD(steps=many, objective=objective),
        "apgd": APGD(steps=many, objective=objective),
        # The better of clean image and step by its own objective: a step that leads astray is not a strong one.
        "step": FGSM(objective=objective, keep_best=True),
        "black": black_box or Member(name="square").make(queries=queries, objective=objective),
    }
    free = PGD(steps=many, objective=objective, step_size=UNBOUNDED_STEP, random_start=False)
    rows: list[dict[str, float]] = []
    cost, skipped, kept = [0, 0], 0, 0
    for i, picture in enumerate(images):
        check_image(picture, f"image {i}")
        image = picture[None].to(segmenter.device)
        clean = segmenter.predict(image, [prompts[i]])[0].masks
        full = clean.flatten(1).any(1)
        chosen = [p for p, there in zip(prompts[i], full.tolist(), strict=True) if there]
        kept, skipped = kept + len(chosen), skipped + len(prompts[i]) - len(chosen)
        if chosen:
            task = Task(segmenter=segmenter, clean=image, prompts=[chosen], reference=[clean[full]])
            probe = _Probe(task=task, objective=names[objective], cost=cost)
            seed = seeds[i] if seeds is not None else 0
            row = probe.start() | probe.noise(eps, seed)
            for name, attack in attacks.items():
                row |= probe.attacked(name, attack, eps, seed)
            rows.append(row | probe.attacked("free", free, 1.0, seed))
    if not rows:
        raise InputError("The clean masks of all prompts are empty.", hint="Give images with objects and prompts.")
    mean = {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
    white = sum(min(row["few_iou"], row["many_iou"], row["apgd_iou"]) for row in rows) / len(rows)
    findings = (
        dead_gradients(zero=mean["zero"], non_finite=mean["non_finite"]),
        black_box_wins(white=white, black=mean["black_iou"]),
        steps_do_not_help(few=mean["few"], many=mean["many"], noise=mean["noise"], left=mean["many_iou"]),
        unbounded_fails(left=mean["free_iou"]),
        noise_suffices(noise=mean["noise"], step=mean["step"], left=mean["step_iou"]),
    )
    return MaskingReport(
        model=segmenter.name, eps=eps, images=len(rows), prompts=kept, skipped=skipped, gradients=cost[0],
        forwards=cost[1] + len(images), findings=findings,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class _Probe:
    """Measures one image; cost: gradients and forwards so far, counted up."""

    task: Task
    objective: Entry
    cost: list[int]

    def start(self) -> dict[str, float]:
        """Shares of dead gradients at the clean image."""
        x = self.task.clean.clone().requires_grad_(True)
        loss = Goal(task=self.task, objective=self.objective)(x, [0], 0.0).loss.sum()
        gradient = torch.autograd.grad(loss, x)[0] if loss.requires_grad else torch.zeros_like(x)
        self.cost[:] = self.cost[0] + 1, self.cost[1] + 1
        fine = gradient.isfinite()
        # Times the number of pixels: the objective is a mean over them, which makes honest gradients small.
        dead = fine & (gradient.abs() * gradient[0, 0].numel() <= SMALL)
        return {"zero": float(dead.double().mean()), "non_finite": float((~fine).double().mean())}

    @torch.no_grad()
    def noise(self, eps: float, seed: int) -> dict[str, float]:
        """The strongest of some images with every value moved by +-eps at random, as far as a gradient step goes."""
        goal, draw = Goal(task=self.task, objective=self.objective), generator(seed, "masking noise")
        clean, reached = self.task.clean, []
        for _ in range(DRAWS):
            sign = torch.randint(0, 2, clean.shape[1:], generator=draw)[None] * 2 - 1
            reached.append(float(goal((clean + eps * sign.to(clean)).clamp(0, 1), [0], 1.0).rank))
        self.cost[1] += DRAWS
        return {"noise": min(reached)}

    def attacked(self, name: str, attack: Attack, eps: float, seed: int) -> dict[str, float]:
        """The lowest objective of an attack as `name`, and the IoU it leaves after rounding as `name`_iou."""
        task = self.task
        result = attack.run(
            task.segmenter, task.clean, task.prompts, threat=Threat(eps=eps), reference=task.reference, seeds=[seed]
        )
        left = overlap(task, result.images, attack.select)
        self.cost[:] = self.cost[0] + result.gradients, self.cost[1] + result.forwards + 1
        return {name: float(result.losses.nan_to_num(torch.inf).min()), f"{name}_iou": float(left)}
