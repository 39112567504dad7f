"""Starts, gradient processing and step rules for recipes; each works on the n active images of a State."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from redsam.attacks.loop import Gradient, Rule, State
from redsam.threat import Norm

SMALL = 1e-12  # below this a gradient is zero: no direction is made up


# --- starts --------------------------------------------------------------------------------------------------------
def zero(state: State) -> Tensor:
    """The clean images."""
    return state.clean


def uniform(state: State) -> Tensor:
    """Uniform in the ball: linf every value apart; l2 a random direction, radius eps * u^(1/n); l0 any values, of which
    the projection keeps the largest. Drawn on the CPU from each image's generator, so a device changes nothing."""
    shape, eps = state.clean.shape[1:], state.threat.eps
    draw = {"linf": _cube, "l2": _ball, "l0": _cube}[state.threat.norm]
    noise = torch.stack([draw(shape, g) for g in state.generators]).to(state.clean)
    return state.clean + noise * (eps if state.threat.norm != "l0" else 1.0)


def given(images: Tensor) -> Callable[[State], Tensor]:
    """A start from these Bx3xHxW images (another attack's result)."""
    return lambda state: images[state.active].to(state.clean)


def _cube(shape: torch.Size, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator) * 2 - 1


def _ball(shape: torch.Size, generator: torch.Generator) -> Tensor:
    direction = torch.randn(shape, generator=generator)
    radius = torch.rand((), generator=generator) ** (1 / direction.numel())
    length: Tensor = torch.linalg.vector_norm(direction).clamp_min(SMALL)
    return direction * (radius / length)


# --- gradient processing -------------------------------------------------------------------------------------------
def momentum(decay: float) -> Gradient:
    """MI-FGSM, eq. 6: g <- decay * g + gradient / mean|gradient| per image.

    Published with the l1 norm; the code of the paper and every re-implementation divide by the mean, which differs by
    one constant per image and leaves sign and direction of the sum unchanged.
    """

    def process(gradient: Tensor, state: State) -> Tensor:
        size = gradient.abs().flatten(1).mean(1).clamp_min(SMALL)[:, None, None, None]
        total = gradient / size
        if "momentum" in state.memory:
            total = total + decay * state.memory["momentum"]
        state.memory["momentum"] = total
        return total

    return process


# --- step rules ----------------------------------------------------------------------------------------------------
def steepest(gradient: Tensor, norm: Norm) -> Tensor:
    """Unit step of steepest ascent: sign for linf, gradient / l2 length per image otherwise; zero stays zero."""
    if norm == "linf":
        return gradient.sign()
    length: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1).clamp_min(SMALL)
    return gradient / length[:, None, None, None]


def fixed_step(size: float) -> Rule:
    """x - size * steepest(gradient), projected by the loop."""
    return lambda gradient, state: state.x - size * steepest(gradient, state.threat.norm)
