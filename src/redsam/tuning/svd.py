"""svd: only the singular values of chosen layers are trained (after Robust SAM, Long et al., AAAI 2025)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from redsam.errors import InputError
from redsam.registry import register
from redsam.tuning.base import Attached, Tuning
from redsam.tuning.patches import Patch, SingularValues, decomposed

# SAM's two neck convolutions; of SAM 2's four FPN convolutions the two deepest, which make the embedding; of SAM 3's
# four levels the two convolutions of that embedding's level. 256 + 256 numbers in every published size.
NECKS = (
    r"vision_encoder\.neck\.conv[12]",
    r"vision_encoder\.neck\.convs\.[01]",
    r"vision_encoder\.neck\.fpn_layers\.2\.proj[12]",
)
COUNT = 512
GROUPS = {"encoder": "vision_encoder", "decoder": "mask_decoder"}


@register("defense", "svd", group="tuning", random=False, differentiable=True,
          paper="Robust SAM: On the Adversarial Robustness of Vision Foundation Models (Long et al.)", year=2025,
          url="https://arxiv.org/abs/2504.08906")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class Svd(Tuning):
    """Singular values of chosen convolutions and linear layers; U and V and everything else stay as they are.

    layers: "neck" (default: 512 numbers), "encoder" or "decoder" (every convolution and linear layer of it), "all", or
    a regular expression searched in module names. Layers nearest the neck come first, backwards through the encoder.
    count: cut at exactly so many numbers, the last layer to its leading values; None is 512 for "neck" and all for
    others. A neck of fewer than 512 (a small model's) is filled up with its further convolutions, then with the last
    encoder layers, as far as the model has any. rank: at most so many leading values of each layer. signed: values are
    scaled by 1 + c and may turn negative; else by exp(c) and stay positive. regulariser: weight of the mean squared c
    in the loss.

    Source: the paper says that singular values alone are adapted, 512 of them. Which ones, the loss and the rate were
    not recovered: neck convolutions are what the first authors' SAM-PARSER (arXiv 2308.14604) trains, and 256 + 256
    fits. Deviation: relative changes c, of one scale for large and small values, are what Adam steps on.
    """

    lr: float = 5e-3
    layers: str = "neck"
    count: int | None = None
    rank: int | None = None
    signed: bool = False
    regulariser: float = 0.0

    def __post_init__(self) -> None:
        for name in ("count", "rank"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}={value} leaves nothing to train.", hint=f"Give {name} of 1 or more.")
        if self.regulariser < 0:
            raise InputError(f"regulariser={self.regulariser:g} rewards change.", hint="Give 0 or more.")

    def attach(self, model: nn.Module, *, seed: int = 0) -> Attached:
        chosen = chosen_layers(model, self)
        parts: dict[str, Scaled] = {}
        originals: dict[str, Tensor] = {}
        for name, rank in chosen:
            layer = model.get_submodule(name)
            originals[name] = cast(Tensor, layer.weight)
            part = Scaled(originals[name], rank=rank, signed=self.signed)
            parametrize.register_parametrization(layer, "weight", part)
            parts[f"{name}.weight"] = part

        def release() -> None:
            for name, _ in chosen:
                parametrize.remove_parametrizations(model.get_submodule(name), "weight", leave_parametrized=False)

        def patches() -> list[Patch]:
            return [
                SingularValues(
                    weight=f"{name}.weight",
                    change=parts[f"{name}.weight"].change.detach().cpu().float().clone(),
                    signed=self.signed,
                ).guarded(originals[name])
                for name, _ in chosen
            ]

        def penalty() -> Tensor:
            return self.regulariser * torch.cat([part.change for part in parts.values()]).square().mean()

        return Attached(
            parameters={name: part.change for name, part in parts.items()},
            patches=patches,
            release=release,
            penalty=penalty if self.regulariser else None,
        )


class Scaled(nn.Module):
    """A parametrisation: weight + U diag(S c) V^T with trainable c (see patches.SingularValues), in the weight's own
    precision; c = 0 is the weight, bit for bit."""

    left: Tensor
    right: Tensor
    values: Tensor

    def __init__(self, weight: Tensor, *, rank: int, signed: bool) -> None:
        super().__init__()
        left, values, right = decomposed(weight)
        for name, tensor in (("left", left[:, :rank]), ("values", values[:rank]), ("right", right[:rank])):
            self.register_buffer(name, tensor.to(weight.dtype).to(weight.device))
        self.change = nn.Parameter(torch.zeros_like(self.values))
        self.signed = signed

    def forward(self, original: Tensor) -> Tensor:
        factor = self.change if self.signed else torch.expm1(self.change)
        return original + ((self.left * (self.values * factor)) @ self.right).reshape(original.shape)


def chosen_layers(model: nn.Module, method: Svd) -> list[tuple[str, int]]:
    """(name, how many leading singular values) of the layers of a method on a model, in order. Raises InputError."""
    names = candidates(model, method.layers)
    count = method.count
    if count is None and method.layers == "neck":
        count = min(COUNT, sum(min(full_rank(model, n), method.rank or COUNT) for n in names))
    out: list[tuple[str, int]] = []
    for name in names:
        have = sum(rank for _, rank in out)
        rank = full_rank(model, name)
        rank = min(rank, method.rank or rank, rank if count is None else count - have)
        if rank > 0:
            out.append((name, rank))
    have = sum(rank for _, rank in out)
    if count is not None and have < count:
        raise InputError(
            f"{count} singular values were asked for, the chosen layers of the model have {have}.",
            hint=f"Type: --set count={have}, or another --set layers=REGEX.",
        )
    return out


def full_rank(model: nn.Module, name: str) -> int:
    """How many singular values a layer has."""
    return min(cast(Tensor, model.get_submodule(name).weight).flatten(1).shape)


def candidates(model: nn.Module, layers: str) -> list[str]:
    """Names of the layers that come into question, in order. Raises InputError where there are none."""
    every = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    near = [n for pattern in NECKS for n in every if re.fullmatch(pattern, n)]
    if layers == "neck":
        if not near:
            raise InputError(
                "Method 'svd' does not fit this model: it has no neck convolutions that are known here.",
                hint="Name layers: --set layers=REGEX",
            )
        return [*near, *(n for n in backwards(every) if n.startswith("vision_encoder.") and n not in near)]
    if layers in GROUPS or layers == "all":
        found = [n for n in every if layers == "all" or n.startswith(f"{GROUPS[layers]}.")]
    else:
        try:
            found = [n for n in every if re.search(layers, n)]
        except re.error as error:
            raise InputError(f"layers='{layers}' is no regular expression: {error}.") from error
    if not found:
        raise InputError(
            f"Method 'svd' does not fit this model: no layer answers to '{layers}'.",
            hint=f"It has, for example, {', '.join(every[:: max(1, len(every) // 3)][:3]) or 'no such layer at all'}.",
        )
    first = [n for n in near if n in found]
    return [*first, *(n for n in backwards(found) if n not in first)]


def backwards(names: Sequence[str]) -> list[str]:
    """Neck layers as they stand, then the others from the last to the first."""
    neck = [n for n in names if ".neck." in n]
    return [*neck, *(n for n in reversed(names) if n not in neck)]
