"""random: as many numbers as svd trains, but drawn at random. Whether singular values are a good choice of 512."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from redsam.errors import InputError
from redsam.registry import register
from redsam.seeds import generator
from redsam.tuning.base import Attached, Tuning, place, trainable
from redsam.tuning.patches import Entries, Patch


@register("defense", "random", group="tuning", random=False, differentiable=True, paper="baseline of redsam", year=2026,
          url="")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class RandomNumbers(Tuning):
    """`count` single weights, drawn uniformly over the parameters whose names `within` is found in ("" is all of them).

    Each moves in units of its own tensor's standard deviation, so that one rate serves all.
    """

    lr: float = 5e-2
    count: int = 512
    within: str = ""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"count={self.count} leaves nothing to train.", hint="Give 1 or more.")

    def attach(self, model: nn.Module, *, seed: int = 0) -> Attached:
        try:
            known = {n: p for n, p in trainable(model).items() if re.search(self.within, n)}
        except re.error as error:
            raise InputError(f"within='{self.within}' is no regular expression: {error}.") from error
        places = drawn({n: p.numel() for n, p in known.items()}, self.count, generator(seed, "random numbers"))
        parts = {name: Moved(known[name], index) for name, index in places.items()}
        for name, part in parts.items():
            parametrize.register_parametrization(*place(model, name), part)

        def release() -> None:
            for name in parts:
                parametrize.remove_parametrizations(*place(model, name), leave_parametrized=False)

        def patches() -> list[Patch]:
            return [
                Entries(weight=n, index=part.index.cpu(), values=part(known[n]).detach().flatten()[part.index].cpu())
                for n, part in parts.items()
            ]

        return Attached(parameters={n: p.change for n, p in parts.items()}, patches=patches, release=release)


class Moved(nn.Module):
    """A parametrisation: single numbers of a tensor plus `change` times the tensor's standard deviation."""

    index: Tensor

    def __init__(self, weight: Tensor, index: Tensor) -> None:
        super().__init__()
        self.register_buffer("index", index.to(weight.device))
        spread = float(weight.detach().double().std()) if weight.numel() > 1 else 0.0
        self.unit = spread or float(weight.detach().abs().max()) or 1.0
        self.change = nn.Parameter(torch.zeros(len(index), dtype=weight.dtype, device=weight.device))

    def forward(self, original: Tensor) -> Tensor:
        return original.flatten().index_add(0, self.index, self.unit * self.change).view_as(original)


def drawn(sizes: dict[str, int], count: int, random: torch.Generator) -> dict[str, Tensor]:
    """`count` different places, uniform over all numbers of tensors of these sizes: sorted flat indices by name."""
    total = sum(sizes.values())
    if total < count:
        raise InputError(
            f"Method 'random' does not fit this model: {count} numbers of {total} cannot be drawn.",
            hint="Type: --set count=NUMBER, or another --set within=REGEX.",
        )
    found: dict[int, None] = {}
    while len(found) < count:
        found.update(dict.fromkeys(torch.randint(total, (count,), generator=random).tolist()))
    flat = torch.tensor(sorted(list(found)[:count]))
    out, first = {}, 0
    for name, size in sizes.items():
        mine = flat[(flat >= first) & (flat < first + size)] - first
        if len(mine):
            out[name] = mine
        first += size
    return out
