"""PLAN.yaml: models x defences x probes x prompts x data as one file, checked before anything is loaded.

Every key of the file is a field here; docs/bench.md shows them at work. A slip is one line that names the place and the
nearest key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError

from redsam.bench.flight import AUTO, Batch, batch_of
from redsam.bench.presets import Change, Preset, Trial
from redsam.bench.presets import preset as preset_named
from redsam.errors import InputError, RedsamError
from redsam.models.values import Select
from redsam.registry import unknown
from redsam.threat import Threat


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _named(key: str) -> BeforeValidator:
    """A text alone stands for {key: text}."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


def _listed(value: Any) -> Any:
    """One thing alone stands for a list of it."""
    return value if isinstance(value, list | tuple) else [value]


def _chain(value: Any) -> Any:
    """`none` is no purifier; one text is a chain of one."""
    if value is None or value == "none":
        return ()
    return _listed(value)


def _threat(value: Any) -> Any:
    """An eps alone (8/255, 0.03) is linf; in a mapping a fraction is read, too."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        value = {"norm": "linf", "eps": value}
    if isinstance(value, Mapping) and isinstance(value.get("eps"), str):
        value = {**value, "eps": Threat.parse_eps(value["eps"])}
    if isinstance(value, Mapping):
        Threat.from_dict(value)  # raises InputError for what is no threat
    return value


class ModelEntry(_Strict):
    """name: as for `redsam audit MODEL`. dtype: of the weights."""

    name: str
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"


class DataEntry(_Strict):
    """path: a folder, a file or a shared set, `demo` for the bundled photographs. limit: instead of the plan's."""

    path: str = "demo"
    reader: str | None = None
    limit: int | None = Field(default=None, ge=1)


class Asked(_Strict):
    """A prompt protocol and its options."""

    name: str
    args: dict[str, Any] = {}


class AttackEntry(_Strict):
    """An attack, asked once for each threat."""

    attack: str
    args: dict[str, Any] = {}
    threats: Annotated[list[Annotated[dict[str, Any], BeforeValidator(_threat)]], BeforeValidator(_listed)] = Field(
        min_length=1
    )


class CorruptionEntry(_Strict):
    """A corruption, asked once for each severity."""

    corruption: str
    args: dict[str, Any] = {}
    severities: Annotated[list[int], BeforeValidator(_listed)] = Field(default=[1, 3, 5], min_length=1)


def _kind(value: Any) -> str:
    given = value if isinstance(value, Mapping) else {}
    return "corruption" if "corruption" in given and "attack" not in given else "attack"


Probe = Annotated[
    Annotated[AttackEntry, Tag("attack")] | Annotated[CorruptionEntry, Tag("corruption")], Discriminator(_kind)
]


class PlanFile(_Strict):
    """The file. What `preset` has stands unless prompts, probes, limit or joint are given beside it; without a preset
    prompts are needed, and without probes models are measured clean. Each of `defenses` is one chain of purifiers in
    front of every model, `none` for none. seed: every random choice derives from it. batch, memory: as --batch-size and
    --memory of the command, which go before; they are no part of a cell."""

    name: str = "bench"
    models: Annotated[list[Annotated[ModelEntry, _named("name")]], BeforeValidator(_listed)] = Field(min_length=1)
    defenses: list[Annotated[tuple[str, ...], BeforeValidator(_chain)]] = Field(default=[()], min_length=1)
    data: Annotated[list[Annotated[DataEntry, _named("path")]], BeforeValidator(_listed)] = Field(
        default=[DataEntry()], min_length=1
    )
    preset: str | None = None
    prompts: Annotated[list[Annotated[Asked, _named("name")]], BeforeValidator(_listed)] | None = None
    probes: list[Probe] | None = None
    limit: int | None = Field(default=None, ge=0)
    joint: bool | None = None
    objects: str | None = None
    select: Select = "iou"
    seed: int = 0
    batch: int | str = 1
    memory: float | str | None = None

    def together(self, batch: int | str | None = None, memory: float | str | None = None) -> Batch:
        """How many images are worked on at a time; what is given here goes before. Raises InputError."""
        if memory is None and batch in (None, AUTO):
            memory = self.memory
        return batch_of(self.batch if batch is None else batch, memory)

    def asked(self) -> Preset:
        """What is asked of each model, as a preset. Raises UnknownName, InputError."""
        base = preset_named(self.preset) if self.preset else Preset(name=self.name, summary="", protocols=())
        if self.prompts is not None:
            base = replace(base, protocols=tuple((p.name, p.args) for p in self.prompts))
        if not base.protocols:
            raise InputError("The plan asks no prompts.", hint="Add prompts: [point, box], or preset: quick.")
        if self.probes is not None:
            attacks = [p for p in self.probes if isinstance(p, AttackEntry)]
            changes = [p for p in self.probes if isinstance(p, CorruptionEntry)]
            base = replace(
                base,
                trials=tuple(Trial(attack=p.attack, args=p.args, threats=tuple(p.threats)) for p in attacks),
                changes=tuple(
                    Change(corruption=p.corruption, args=p.args, severities=tuple(p.severities)) for p in changes
                ),
            )
        if self.limit is not None:
            base = replace(base, limit=self.limit or None)
        return base if self.joint is None else replace(base, joint=self.joint)


def read_plan(path: Path | str) -> PlanFile:
    """A plan from its file. Raises InputError: no such file, not YAML, a key or value that does not belong."""
    where = Path(path).expanduser()
    try:
        text = where.read_text(encoding="utf-8")
        _refuse_twice(yaml.compose(text, Loader=yaml.SafeLoader))
        found = yaml.safe_load(text)
    except OSError as error:
        raise InputError(
            f"{where} cannot be read: {error.strerror or error}.", hint="Give a plan: PLAN.yaml"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise InputError(f"{where} is not YAML: {said}.", hint="See docs/bench.md for a plan.") from error
    if not isinstance(found, dict):
        raise InputError(f"{where} is not a plan.", hint="It starts with models: [lab-b]; see docs/bench.md.")
    return plan_of(found, where=str(where))


def plan_of(values: Mapping[str, Any], *, where: str = "plan") -> PlanFile:
    """A plan from what such a file holds. Raises InputError, UnknownName."""
    try:
        plan = PlanFile.model_validate(values)
        plan.together()
        return plan
    except ValidationError as error:
        raise _slip(error, where) from None
    except RedsamError as error:  # a threat or a batch that is none
        raise InputError(f"{where}: {error.message}", hint=error.hint) from None


def _refuse_twice(node: Any) -> None:
    """YAML takes the last of two equal keys, and the first is lost without a word."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    keys = [key.value for key, _ in pairs]
    twice = next((k for k in keys if keys.count(k) > 1), None)
    if twice is not None:
        raise yaml.YAMLError(f"'{twice}' is there twice, line {node.start_mark.line + 1}")
    children = [value for _, value in pairs] if pairs else node.value if isinstance(node, yaml.SequenceNode) else []
    for child in children:
        _refuse_twice(child)


_PARTS: Mapping[str, type[BaseModel]] = {"models": ModelEntry, "data": DataEntry, "prompts": Asked}


def _slip(error: ValidationError, where: str) -> RedsamError:
    """The first thing that is wrong, in one line."""
    first = error.errors()[0]
    spot = [part for part in first["loc"] if part not in ("attack", "corruption") or part == first["loc"][-1]]
    kind = first["type"]
    if kind in ("extra_forbidden", "missing"):
        holder, key = _place(spot[:-1]), str(spot[-1])
        known = list(_model_at(first["loc"]).model_fields)
        if kind == "missing":
            return InputError(f"{where}: {holder} has no '{key}'.", hint=f"It takes {', '.join(known)}.")
        found = unknown(f"key of {holder}", key, known)
        return InputError(f"{where}: {found.message}", hint=found.hint)
    said = first["msg"][0].lower() + first["msg"][1:]
    return InputError(f"{where}, {_place(spot)}: {said}.", hint="See docs/bench.md.")


def _model_at(loc: Sequence[str | int]) -> type[BaseModel]:
    if len(loc) == 1:
        return PlanFile
    if loc[0] == "probes":
        return CorruptionEntry if "corruption" in loc[:-1] else AttackEntry
    return _PARTS.get(str(loc[0]), PlanFile)


def _place(spot: Sequence[str | int]) -> str:
    """`probes[0].threats`; the plan itself where there is nothing."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in spot)
    return text.lstrip(".") or "the plan"
