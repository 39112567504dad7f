"""DiffPure: noise until an attack is drowned, then back to a photograph."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from redsam.defenses.base import within
from redsam.defenses.diffusion import Draw, Predict, Schedule, pairs
from redsam.defenses.diffusion_purifier import DiffusionPurifier
from redsam.errors import InputError
from redsam.registry import register

ETA = {"ddpm": 1.0, "ddim": 0.0}


@register("defense", "diffpure", group="purifier", random=True, differentiable=True,
          paper="Diffusion Models for Adversarial Purification (Nie et al.)", year=2022,
          url="https://arxiv.org/abs/2205.07460")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class DiffPure(DiffusionPurifier):
    """Forward to timestep t, back in `steps` calls of the model. t: thousandths of the model's schedule; published t* =
    0.1 (CIFAR-10, linf 8/255), 0.075 (CIFAR-10, l2), 0.15 (ImageNet, linf 4/255), that is 100, 75, 150. steps:
    published one a timestep. sampler: ddpm (ancestral) or ddim (no noise on the way back).

    Deviation: the discrete chain with 10 evenly spread steps where the paper solves the reverse SDE with as many as
    there are timesteps; gradients by checkpointing instead of the adjoint SDE, so they are those of this very chain;
    the published models were trained on the very data, for far longer than lab-ddpm.
    """

    t: int = 100
    steps: int = 10
    sampler: str = "ddpm"

    def __post_init__(self) -> None:
        super().__post_init__()
        within("Timestep", self.t, 1, 1000, whole=True)
        within("Steps", self.steps, 1, 1000, whole=True)
        if self.sampler not in ETA:
            raise InputError(f"There is no sampler '{self.sampler}'.", hint=f"Known: {', '.join(ETA)}.")

    def diffuse(self, x: Tensor, schedule: Schedule, predict: Predict, draw: Draw) -> Tensor:
        # t steps of noise end at the timestep of index t - 1.
        last = max(round(self.t / 1000 * len(schedule)), 1)
        count = min(self.steps, last)
        times = [round(last * (count - k) / count) - 1 for k in range(count)]
        x = schedule.noised(x, times[0], draw())
        for t, to in pairs(times):
            eps = predict(x, t)
            x = schedule.back(schedule.guess(x, t, eps), eps, t, to, eta=ETA[self.sampler], draw=draw)
        return x
