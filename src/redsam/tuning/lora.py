"""lora: low-rank updates of the encoder's attention, by the peft package (Hu et al., 2022)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from redsam.errors import InputError, MissingExtra
from redsam.registry import register
from redsam.seeds import stable_seed
from redsam.tuning.base import Attached, Tuning, place
from redsam.tuning.patches import LowRank, Patch

NAME = "redsam"


@register("defense", "lora", group="tuning", random=False, differentiable=True,
          paper="LoRA: Low-Rank Adaptation of Large Language Models (Hu et al.)", year=2022,
          url="https://arxiv.org/abs/2106.09685")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class Lora(Tuning):
    """W + alpha / rank * B A on the linear layers whose names `layers` is found in; needs `redsam[lora]`.

    Default: the attention projections of the image encoder. Deviation: Hu et al. adapt queries and values of a language
    model; SAM's encoder has them in one layer with the keys.
    """

    lr: float = 1e-3
    rank: int = 4
    alpha: float = 8.0
    layers: str = r"^vision_encoder\..*\.(attn|attention)\."

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError(f"rank={self.rank} leaves nothing to train.", hint="Give 1 or more.")

    def attach(self, model: nn.Module, *, seed: int = 0) -> Attached:
        peft = required()
        try:
            names = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and re.search(self.layers, n)]
        except re.error as error:
            raise InputError(f"layers='{self.layers}' is no regular expression: {error}.") from error
        if not names:
            raise InputError(
                f"Method 'lora' does not fit this model: no linear layer answers to '{self.layers}'.",
                hint="Name layers: --set layers=REGEX",
            )
        config = peft.LoraConfig(r=self.rank, lora_alpha=self.alpha, lora_dropout=0.0, target_modules=names)
        with torch.random.fork_rng(devices=[]):  # peft draws A from the global generator
            torch.manual_seed(stable_seed(seed, "lora"))
            peft.inject_adapter_in_model(config, model, adapter_name=NAME)
        model.eval().requires_grad_(False)
        layers: dict[str, Any] = {n: model.get_submodule(n) for n in names}
        parameters = {
            f"{n}.{side}": getattr(layer, f"lora_{side}")[NAME].weight
            for n, layer in layers.items()
            for side in ("A", "B")
        }
        for p in parameters.values():
            p.requires_grad_(True)

        def release() -> None:
            for name, layer in layers.items():
                owner, leaf = place(model, name)
                setattr(owner, leaf, layer.get_base_layer())

        def patches() -> list[Patch]:
            return [
                LowRank(
                    weight=f"{n}.weight",
                    up=parameters[f"{n}.B"].detach().cpu().clone(),
                    down=parameters[f"{n}.A"].detach().cpu().clone(),
                    scale=float(layer.scaling[NAME]),
                )
                for n, layer in layers.items()
            ]

        return Attached(parameters=parameters, patches=patches, release=release)


def required() -> Any:
    """The peft package. Raises MissingExtra."""
    try:
        import peft
    except ImportError as error:
        raise MissingExtra("peft", "lora", needed_for="Method 'lora'") from error
    return peft
