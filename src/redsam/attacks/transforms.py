"""What transfer recipes add to a momentum step: where the gradient is taken, over which copies, and how it is smoothed.

A copy is a `Transform`: the image the model sees, differentiable, random draws from each image's own CPU generator.
Copies keep their image's size; prompts and references stay where they are when a copy moves the picture. Gradients are
those of the loss, which is minimised.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from redsam.attacks.loop import Differentiate, Evaluate, Evaluation, Gradient, Parts, State, Transform, slope
from redsam.errors import InputError
from redsam.threat import Threat

Kernel = Literal["gaussian", "uniform", "linear"]


# --- one copy ------------------------------------------------------------------------------------------------------
def diversity(rate: float, probability: float) -> Transform:
    """DI (Xie et al., 2019, section 3.2): with this probability shrink to a random size of at least `rate` of the image
    and put it at a random place of a black canvas of the image's size.

    The paper draws 299..329 of a 330 canvas; here the width is drawn in rate * W .. W - 1, the height keeps the aspect.
    """
    if not 0 < rate <= 1:
        raise InputError(f"The resize rate is {rate:g}.", hint="Give a share above 0 and at most 1, such as 0.9.")

    def copy(x: Tensor, state: State) -> Tensor:
        return torch.cat(
            [_diverse(one[None], g, rate, probability) for one, g in zip(x, state.generators, strict=True)]
        )

    return copy


def _diverse(image: Tensor, generator: torch.Generator, rate: float, probability: float) -> Tensor:
    """Four numbers are drawn whether they are used or not, so that the next step does not depend on the coin."""
    height, width = image.shape[-2:]

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, max(high, low + 1), (1,), dtype=torch.int32, generator=generator))

    small = draw(max(int(width * rate), 1), width)
    size = max(height * small // width, 1), small
    top, left = draw(0, height - size[0]), draw(0, width - small)
    if float(torch.rand(1, generator=generator)) >= probability:
        return image
    shrunk = F.interpolate(image, size=size, mode="bilinear", align_corners=False)
    return F.pad(shrunk, (left, width - small - left, top, height - size[0] - top))


def scaled(factor: float) -> Transform:
    """SI (Lin et al., 2020, section 3.2): the dimmed copy factor * x, whose gradient carries the factor."""
    return lambda x, state: x * factor


def lookahead(size: float, decay: float) -> Transform:
    """NI (Lin et al., 2020, eq. 6): x moved on by size * decay * accumulated gradient, before the gradient is taken.

    The momentum is the one of `parts.momentum`, normalised by the mean as in the authors' code: with the l1 norm of the
    text the look-ahead would be smaller than a float can show.
    """
    return lambda x, state: x - size * decay * state.memory["momentum"] if "momentum" in state.memory else x


def spectrum(sigma: float, rho: float) -> Transform:
    """SSA (Long et al., 2022, eq. 7): IDCT(DCT(x + N(0, sigma^2)) * U(1 - rho, 1 + rho)), a draw for every value."""

    def copy(x: Tensor, state: State) -> Tensor:
        noise = torch.stack([torch.randn(x.shape[1:], generator=g) for g in state.generators]).to(x)
        mask = torch.stack([1 + rho * (2 * torch.rand(x.shape[1:], generator=g) - 1) for g in state.generators]).to(x)
        rows, columns = cosines(x.shape[-2]).to(x), cosines(x.shape[-1]).to(x)
        return rows.T @ ((rows @ (x + sigma * noise) @ columns.T) * mask) @ columns

    return copy


@lru_cache(maxsize=16)
def cosines(count: int) -> Tensor:
    """The orthonormal DCT-II matrix C, count x count: C @ x transforms a column, C.T is its inverse."""
    n = torch.arange(count, dtype=torch.float64)
    out = torch.cos(math.pi / count * (n + 0.5) * n[:, None]) * math.sqrt(2 / count)
    out[0] = math.sqrt(1 / count)
    return out


def chain(*transforms: Transform) -> Transform:
    """One after the other."""

    def copy(x: Tensor, state: State) -> Tensor:
        for transform in transforms:
            x = transform(x, state)
        return x

    return copy


# --- gradients over copies -----------------------------------------------------------------------------------------
def average(copies: Sequence[Transform]) -> Differentiate:
    """The mean gradient over these copies of the iterate; the first copy's loss stands for the iterate's."""
    if not copies:
        raise InputError("A gradient over 0 copies is none.", hint="Give at least 1 copy.")

    def differentiate(evaluate: Evaluate, state: State) -> tuple[Evaluation, Tensor]:
        result, total = slope(evaluate, state, state.x, copies[0])
        for transform in copies[1:]:
            total = total + slope(evaluate, state, state.x, transform)[1]
        return result, total / len(copies)

    return differentiate


def variance_tuned(count: int, radius: float) -> Differentiate:
    """VMI (Wang & He, 2021, algorithm 1): the gradient plus the last step's variance, which is the mean gradient over
    `count` neighbours (uniform in the cube of this radius, not cut to [0, 1]) minus the gradient."""
    if count < 1:
        raise InputError(f"A variance over {count} neighbours is none.", hint="Give at least 1 sample.")

    def differentiate(evaluate: Evaluate, state: State) -> tuple[Evaluation, Tensor]:
        result, gradient = slope(evaluate, state, state.x)
        tuned = gradient + state.memory["variance"] if "variance" in state.memory else gradient
        if state.step < state.steps - 1:  # the last one would be used by nobody
            total = torch.zeros_like(gradient)
            for _ in range(count):
                total = total + slope(evaluate, state, state.x + _cube(state, radius))[1]
            state.memory["variance"] = total / count - gradient
        return result, tuned

    return differentiate


def _cube(state: State, radius: float) -> Tensor:
    shape = state.x.shape[1:]
    return torch.stack([torch.empty(shape).uniform_(-radius, radius, generator=g) for g in state.generators]).to(
        state.x
    )


def ranked_at_iterate(parts: Parts, wanted: bool) -> Parts:
    """The recipe with every iterate's loss and goal taken at the iterate itself, for one more forward pass a step.

    Where the gradient comes from copies, neither the best iterate nor a reached goal is known without that. Unchanged
    if not `wanted`, as published."""
    inner = parts.differentiate or (average([parts.transform]) if parts.transform is not None else None)
    if inner is None or not wanted:
        return parts

    def differentiate(evaluate: Evaluate, state: State) -> tuple[Evaluation, Tensor]:
        _, gradient = inner(evaluate, state)
        with torch.no_grad():
            return evaluate(state.x, state.active, state.step / state.steps), gradient

    return replace(parts, differentiate=differentiate, passes=parts.passes + 1)


# --- gradient processing -------------------------------------------------------------------------------------------
def smoothed(kernel: Kernel, length: int) -> Gradient:
    """TI (Dong et al., 2019, eq. 8): the gradient convolved with a kernel, zeros beyond the border."""
    line = kernel_line(kernel, length)

    def process(gradient: Tensor, state: State) -> Tensor:
        return _along(_along(gradient, line.tolist(), -1), line.tolist(), -2)

    return process


def _along(images: Tensor, line: Sequence[float], dim: int) -> Tensor:
    """Convolved along one dimension, by shifted sums: conv2d with the kernel costs more than a gradient of lab-b."""
    reach, size = len(line) // 2, images.shape[dim]
    padded = F.pad(images, (reach, reach) if dim == -1 else (0, 0, reach, reach))
    out = padded.narrow(dim, 0, size) * line[0]
    for i, weight in enumerate(line[1:], start=1):
        out.add_(padded.narrow(dim, i, size), alpha=weight)
    return out


def kernel_line(kernel: Kernel, length: int) -> Tensor:
    """The 1-D factor (sums to 1) of a separable kernel of odd length 2k + 1 (section 3.2.2): uniform; linear
    1 - |i| / (k + 1); Gaussian whose radius k is 3 standard deviations, as the text says and the authors' code has."""
    if length < 1 or length % 2 == 0:
        raise InputError(f"A kernel of length {length} has no middle.", hint="Give an odd length, such as 15.")
    if kernel not in ("gaussian", "uniform", "linear"):
        raise InputError(f"There is no kernel '{kernel}'.", hint="Choose from gaussian, uniform, linear.")
    k = length // 2
    i = torch.arange(-k, k + 1, dtype=torch.float64)
    line = {
        "gaussian": torch.exp(-0.5 * (3 * i / max(k, 1)).square()),
        "uniform": torch.ones_like(i),
        "linear": 1 - i.abs() / (k + 1),
    }[kernel]
    return line / line.sum()


def step_or_share(step_size: float | None, steps: int, threat: Threat) -> float:
    """The step size given, or the budget shared among the steps: eps / steps, with which the papers' 10 steps reach the
    whole ball."""
    return step_size if step_size is not None else threat.eps / max(steps, 1)
