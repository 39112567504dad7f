"""rga-ablation: what the parts of RGA are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redsam.bench.presets import linf
from redsam.errors import InputError
from redsam.registry import register
from redsam.studies.base import Request, Study
from redsam.studies.rga_transfer import AIM, transfer_table
from redsam.studies.tables import Table

VARIANTS: Mapping[str, Mapping[str, bool]] = {
    "rga": {},
    "rga, no map": {"use_map": False},
    "rga, no RST": {"use_rst": False},
    "rga, no SI": {"use_si": False},
    "rga, neither RST nor SI": {"use_rst": False, "use_si": False},
}


@register("study", "rga-ablation", paper="Region-Guided Attack on the Segment Anything Model (Liu et al.)", year=2024,
          url="https://arxiv.org/abs/2411.02974")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class RgaAblation(Study):
    """RGA whole, without its map, without RST, without SI, with neither; on the source and on all victims.

    Prompts, budget and steps as in `rga-transfer`; RGA itself reads no prompts. Deviation: which variants the paper's
    ablation has was not to be had; without the map the loss is the distance from the clean features alone.
    variants: some of them by name.
    """

    level: int = 8
    steps: int = 40
    prompting: Mapping[str, Any] = field(default_factory=dict)
    aim: Mapping[str, Any] = field(default_factory=lambda: dict(AIM))
    variants: tuple[str, ...] = tuple(VARIANTS)

    transfers = True
    notes = ("The numbers of the published ablation were not to be had, so there is no published row.",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "variants", tuple(self.variants))  # a log has lists
        wrong = [name for name in self.variants if name not in VARIANTS]
        if wrong or not self.variants:
            raise InputError(
                f"There is no variant '{', '.join(wrong)}' of RGA.", hint=f"Choose from: {'; '.join(VARIANTS)}."
            )

    def attacks_used(self) -> Sequence[str]:
        return ("rga",)

    def measure(self, asked: Request) -> Sequence[Table]:
        threats = linf(self.level)
        trials = [self.stepped("rga", threats, self.steps, label=name, **VARIANTS[name]) for name in self.variants]
        return [transfer_table("RGA without its parts", self, asked, trials, (self.aim, self.prompting), [])]
