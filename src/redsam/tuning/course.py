"""Course: everything a training is asked for, in plain values that tell two trainings apart."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from redsam import registry
from redsam.attacks.base import Attack
from redsam.data import Protocol
from redsam.errors import InputError
from redsam.threat import Threat

STEPS = 1000  # when neither steps nor minutes are given
# One attack that wants the mask gone and one that wants every pixel wrong: trained on the first alone, a model learns
# to answer that objective.
ATTACKS = ("pgd:steps=5", "pgd:steps=5,objective=bce")
CHECK = ("pgd:steps=10",)


@dataclass(frozen=True, kw_only=True)
class Course:
    """steps, minutes: whichever ends first; None does not count. attacks: `NAME:FIELD=VALUE,...`, taken in turn; eps
    in linf. adversarial: share of a batch that is attacked. prompts: weight of each prompt protocol; an image is asked
    by one. objects: at most so many of an image. lr: None is the method's own.

    held_out: images of the data kept for checks, evenly spaced. check_every: steps between two checks. check_attacks:
    what robust IoU is measured against. patience: checks without a new best until it ends (0: never). clean_loss: the
    most that held-out clean IoU may fall; numbers that cost more are taken back towards the original until it holds.
    """

    steps: int | None = None
    minutes: float | None = None
    batch: int = 8
    lr: float | None = None
    attacks: tuple[str, ...] = ATTACKS
    eps: float = 8 / 255
    adversarial: float = 0.5
    prompts: Mapping[str, float] = field(default_factory=lambda: {"point": 1.0, "box": 1.0})
    objects: int = 3
    held_out: int = 24
    check_every: int = 100
    check_attacks: tuple[str, ...] = CHECK
    patience: int = 10
    clean_loss: float = 0.02
    save_every: int = 25
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            object.__setattr__(self, "steps", STEPS)
        for name in ("steps", "batch", "objects", "held_out", "check_every", "save_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}={value} cannot be meant.", hint=f"Give {name} of 1 or more.")
        if self.minutes is not None and not self.minutes > 0:
            raise InputError(f"{self.minutes:g} minutes train nothing.", hint="Give more than 0.")
        if not 0 <= self.adversarial <= 1:
            raise InputError(f"adversarial={self.adversarial:g} is no share.", hint="Give 0 to 1.")
        if self.patience < 0 or not self.clean_loss >= 0:
            raise InputError("patience and clean_loss are 0 or more.")
        if self.lr is not None and not (self.lr > 0 and math.isfinite(self.lr)):
            raise InputError(f"A rate of {self.lr:g} cannot be meant.", hint="Leave --lr out for the method's own.")
        if not self.prompts or not all(w >= 0 for w in self.prompts.values()) or not sum(self.prompts.values()) > 0:
            raise InputError("The prompt mix is empty.", hint="Type: --prompts point=1,box=1")
        if not self.attacks or not self.check_attacks:
            raise InputError("A hardening needs an attack.", hint="Type: --attack pgd:steps=5")
        if not self.threat.eps > 0:
            raise InputError("A budget of 0 attacks nothing.", hint="Type: --eps 8/255")
        _ = self.recipes, self.check_recipes, self.protocols  # names and numbers are wrong now or never

    @property
    def threat(self) -> Threat:
        """linf, everywhere in the image, by someone who knows the model."""
        return Threat(eps=self.eps)

    @cached_property
    def recipes(self) -> tuple[Attack, ...]:
        """The attacks."""
        return tuple(map(recipe, self.attacks))

    @cached_property
    def check_recipes(self) -> tuple[Attack, ...]:
        """The attacks of the checks."""
        return tuple(map(recipe, self.check_attacks))

    @cached_property
    def protocols(self) -> dict[str, Protocol]:
        """The prompt protocols by name."""
        return {n: registry.create("protocol", n, max_objects=self.objects) for n, w in self.prompts.items() if w > 0}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; equal for two courses that are one training."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        del plain["save_every"]  # changes no number
        plain["prompts"] = ", ".join(f"{name}={weight:g}" for name, weight in sorted(self.prompts.items()))
        return plain


def recipe(text: str) -> Attack:
    """`pgd` or `pgd:steps=5,objective=bce` to an attack in linf. Raises UnknownName, InputError."""
    name, _, rest = text.strip().partition(":")
    options: dict[str, Any] = {}
    for pair in filter(None, rest.split(",")):
        key, equals, value = (p.strip() for p in pair.partition("="))
        if not (key and equals):
            raise InputError(f"'{text}' is no attack.", hint="Type: NAME or NAME:FIELD=VALUE,FIELD=VALUE")
        options[key] = _value(value)
    entry = registry.get("attack", name)
    if "linf" not in entry.meta["norms"]:
        raise InputError(f"Attack '{name}' does not search in linf.", hint="See: redsam list attacks")
    try:
        made: Attack = registry.create("attack", name, **options)
    except TypeError as error:
        raise InputError(f"'{text}' is no attack: {error}.") from error
    objective = getattr(made, "objective", None)
    if objective is not None and registry.get("objective", objective).meta.get("aim") == "towards":
        raise InputError(f"Objective '{objective}' aims at a mask; a model is hardened against losing its own.")
    return made


def mix(text: str) -> dict[str, float]:
    """`point=2,box=1` or `point,box` to weights. Raises InputError."""
    out: dict[str, float] = {}
    for pair in filter(None, (p.strip() for p in text.split(","))):
        name, equals, weight = pair.partition("=")
        try:
            out[name.strip()] = float(weight) if equals else 1.0
        except ValueError:
            raise InputError(f"'{pair}' is not what --prompts takes.", hint="Type: --prompts point=1,box=1") from None
    return out


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
