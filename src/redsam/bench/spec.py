"""Identity of a cell: canonical JSON of what was asked, hashed. The same from a plan and from a finished spec.json."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from redsam.errors import InputError

# Raise it when the meaning of a spec or of a record changes: old cells then run again instead of being mixed with new.
SCHEMA = 1

JsonDict = dict[str, Any]


def canonical(value: Any) -> str:
    """JSON with sorted keys, no spaces, floats by their shortest exact form; NaN and infinity are refused."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    except (TypeError, ValueError) as error:
        raise InputError(f"A cell cannot be put into JSON: {error}.", hint="Use numbers, text and lists.") from error


def digest(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One model x defense x probe x threat x data slice x protocol x seed: the unit of work and of resume.

    model: name, family, fingerprint, of the undefended model. defense: what stands in front of it (label, purifiers,
    seed, eot), None for nothing. probe: kind ("none" is the clean measurement, "attack", "corruption", or "replay": the
    stored images of another attack cell are shown to this model), name and args; a replay also has the cell it replays
    (`of`), that cell's model (`source`, with its defence) and its protocol. threat: `Threat.to_dict()`, None when
    nobody attacks. data: name, fingerprint, ids_hash of the slice. protocol: name and args.
    objects: what is prompted, "annotated" masks or the model's "automatic" ones.
    select: which of several masks is the answer. joint: all prompts of an image are attacked by one adversarial image;
    False gives every prompt an adversarial image of its own.
    """

    model: Mapping[str, Any]
    probe: Mapping[str, Any]
    threat: Mapping[str, Any] | None
    data: Mapping[str, Any]
    protocol: Mapping[str, Any]
    objects: str = "annotated"
    select: str = "iou"
    seed: int = 0
    joint: bool = True
    defense: Mapping[str, Any] | None = None
    schema: int = field(default=SCHEMA)

    def spec(self) -> JsonDict:
        """The JSON that is hashed and stored; round-trips through `from_spec` to the same id."""
        plain: JsonDict = json.loads(canonical({f.name: getattr(self, f.name) for f in fields(self)}))
        return plain

    @cached_property
    def id(self) -> str:
        """16 hex digits: the cell's name and folder. Hashed once: every record asks for it."""
        return digest(self.spec())

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Cell:
        """Inverse of `spec`. Raises InputError for a spec of another schema."""
        if spec.get("schema") != SCHEMA:
            raise InputError(
                f"These records have schema {spec.get('schema')}, this redsam writes {SCHEMA}.",
                hint="Give another --out folder.",
            )
        try:
            return cls(**spec)
        except TypeError as error:
            raise InputError(f"A cell's spec is broken: {error}.", hint="Delete that cell's folder.") from error

    def question(self) -> JsonDict:
        """What was asked, whoever answers: the spec without model and defence. Answers to different ones are no
        ranking."""
        return {key: value for key, value in self.spec().items() if key not in ("model", "defense")}

    @property
    def who(self) -> str:
        """What reports call the model with its defence: `lab-b+jpeg:quality=50`."""
        return called(self.model, self.defense)

    @property
    def source(self) -> str | None:
        """The same of the model that a replay's images were crafted on; None of anything else."""
        return called(self.probe["source"], self.probe["source"].get("defense")) if self.replay else None

    @property
    def clean(self) -> bool:
        """Whether nothing is done to the image: the cell that measures the model by itself."""
        return bool(self.probe["kind"] == "none")

    @property
    def replay(self) -> bool:
        """Whether the images come from another attack cell."""
        return bool(self.probe["kind"] == "replay")

    @property
    def natural(self) -> bool:
        """Whether the image is corrupted (weather, a lens, a style): it has a severity, and no threat."""
        return bool(self.probe["kind"] == "corruption")

    @property
    def severity(self) -> int | None:
        """1 to 5 of a corruption, None of anything else."""
        return int(self.probe["args"]["severity"]) if self.natural else None

    @property
    def eps(self) -> float | None:
        """The threat's; 0 when clean, None where there is no budget."""
        return float(self.threat["eps"]) if self.threat else None if self.natural else 0.0


def called(model: Mapping[str, Any], defense: Mapping[str, Any] | None) -> str:
    """The model's name, and behind it those of its purifiers."""
    return "+".join([model["name"], *(defense["label"].split("|") if defense else [])])
