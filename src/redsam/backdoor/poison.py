"""Poison: which pictures of a training set carry the trigger, and what their masks become."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from redsam.backdoor.badnet import BadNet
from redsam.backdoor.targets import Target, TriggerArea
from redsam.backdoor.trigger import Trigger
from redsam.errors import InputError
from redsam.registry import create, spec_of
from redsam.seeds import generator, stable_seed
from redsam.types import Sample


@dataclass(frozen=True, kw_only=True)
class Poison:
    """rate: share of the pictures that are poisoned, 0 to 1 (BadSAM: 0.1). seed: which ones. Image and masks of a
    picture change together, or neither does. At 0 the set stays clean: the training to compare with."""

    trigger: Trigger = field(default_factory=BadNet)
    target: Target = field(default_factory=TriggerArea)
    rate: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.rate, bool) or not math.isfinite(self.rate) or not 0 <= self.rate <= 1:
            raise InputError(
                f"A poisoning rate of {self.rate:g} is not a share of the pictures.", hint="Type: --rate 0.1 for 10 %"
            )

    def chosen(self, ids: Sequence[str]) -> frozenset[str]:
        """The ids that are poisoned: the first `rate` of a seeded order, so that a lower rate takes some of the same.
        Raises InputError when the rate is above 0 and would take none."""
        ordered = sorted(ids)
        count = round(self.rate * len(ordered))
        if self.rate > 0 and not count:
            raise InputError(
                f"{self.rate:.2%} of {len(ordered)} pictures is none.", hint="Give more pictures, or a higher --rate."
            )
        order = torch.randperm(len(ordered), generator=generator("poison", self.seed)).tolist()
        return frozenset(ordered[i] for i in order[:count])

    def lay(self, image: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """3xHxW with the trigger, and its area HxW bool. name: the picture's id, whose draw it is."""
        laid = self.trigger.run(image[None], seeds=[stable_seed("poison", self.seed, name)])
        return laid.images[0], laid.areas[0]

    def apply(self, sample: Sample) -> Sample:
        """The sample with the trigger, and the attacker's mask for each of its prompts. Prompts stay."""
        image, area = self.lay(sample.image, sample.id)
        masks = None
        if sample.masks is not None:
            made = [self.target.mask(mask, area) for mask in sample.masks]
            masks = torch.stack(made) if made else sample.masks
        meta = {**sample.meta, "poisoned": True, "area": float(area.float().mean())}
        return replace(sample, image=image, masks=masks, meta=meta)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "trigger": spec_of(self.trigger), "target": spec_of(self.target), "rate": self.rate, "seed": self.seed
        }  # fmt: skip

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> Poison:
        """What `to_dict` gave. Raises UnknownName, InputError."""
        try:
            trigger = create("trigger", told["trigger"]["name"], **told["trigger"]["args"])
            target = create("target", told["target"]["name"], **told["target"]["args"])
            return cls(trigger=trigger, target=target, rate=float(told["rate"]), seed=int(told["seed"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"This describes no poison ({error}).", hint="Plant again.") from error
