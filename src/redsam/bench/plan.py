"""From a preset, models and data to cells; every name and number is checked here, before anything runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from redsam import registry
from redsam.attacks.base import Attack
from redsam.bench.presets import Change, Preset, Trial
from redsam.bench.spec import SCHEMA, Cell, JsonDict, canonical, digest
from redsam.corruptions import Corruption
from redsam.data import Dataset, Protocol
from redsam.errors import InputError
from redsam.models.base import Segmenter
from redsam.models.values import Select
from redsam.threat import Threat

CLEAN: Mapping[str, Any] = {"kind": "none", "name": "none", "args": {}}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """by_model: for each model its cells in the order they run, protocol by protocol, the clean cell first."""

    preset: str
    by_model: tuple[tuple[Cell, ...], ...]
    samples: tuple[str, ...]

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All cells."""
        return tuple(cell for cells in self.by_model for cell in cells)

    def to_json(self, earlier: JsonDict | None = None) -> JsonDict:
        """plan.json: these cells, and those of an earlier plan in the same folder that are not among them."""
        cells = [{"cell": c.id, "spec": c.spec()} for c in self.cells]
        mine = {c["cell"] for c in cells}
        kept = [c for c in (earlier or {}).get("cells", []) if c["cell"] not in mine]
        return {"schema": SCHEMA, "preset": self.preset, "samples": list(self.samples), "cells": kept + cells}


def make_plan(
    segmenters: Sequence[Segmenter],
    dataset: Dataset,
    preset: Preset,
    *,
    objects: str = "annotated",
    select: Select = "iou",
    seed: int = 0,
) -> Plan:
    """Every cell of a preset. Raises UnknownName or InputError for what cannot run, before anything does."""
    if not segmenters:
        raise InputError("An audit needs a model.", hint="Type: redsam list models")
    if not preset.protocols:
        raise InputError(f"Preset '{preset.name}' has no prompt protocol.", hint="Type: redsam list protocols")
    data = slice_of(dataset)
    probes: list[tuple[Mapping[str, Any], JsonDict | None]] = [(CLEAN, None)]
    probes += [pair for trial in preset.trials for pair in probes_of(trial, select)]
    probes += [(probe, None) for change in preset.changes for probe in changes_of(change)]
    protocols = [protocol_spec(name, args) for name, args in preset.protocols]
    rest: dict[str, Any] = {"objects": objects, "select": select, "seed": seed}
    seen: set[str] = set()
    by_model = []
    for one in map(identity, segmenters):
        cells = [
            # Without a threat nothing is attacked: the cell is the same whether prompts are attacked together or apart.
            Cell(**one, probe=probe, threat=threat, data=data, protocol=protocol,
                 joint=preset.joint or threat is None, **rest)
            for protocol in protocols
            for probe, threat in probes
        ]  # fmt: skip
        unique = {c.id: c for c in cells if c.id not in seen}  # a preset or a list of models may name one twice
        seen |= set(unique)
        by_model.append(tuple(unique.values()))
    return Plan(preset=preset.name, by_model=tuple(by_model), samples=dataset.ids)


def slice_of(dataset: Dataset) -> JsonDict:
    """The data part of a spec. Raises InputError for a data set without an image."""
    if not len(dataset):
        raise InputError(f"{dataset.name}: there is no image to audit.", hint="Give --data DIR with images in it.")
    return {"name": dataset.name, "fingerprint": dataset.fingerprint, "ids_hash": digest(list(dataset.ids))}


def describe(segmenter: Segmenter) -> JsonDict:
    """The model part of a spec: the model without its defence."""
    model = segmenter.undefended
    return {"name": model.name, "family": model.family, "fingerprint": model.fingerprint()}


def identity(segmenter: Segmenter) -> JsonDict:
    """The two fields of a cell that say who is asked."""
    return {"model": describe(segmenter), "defense": segmenter.defense}


def attack_of(cell: Cell) -> Attack:
    """The attack an attack cell asks for."""
    attack: Attack = registry.create("attack", cell.probe["name"], **cell.probe["args"])
    return attack


def corruption_of(cell: Cell) -> Corruption:
    """The corruption a corruption cell asks for."""
    corruption: Corruption = registry.create("corruption", cell.probe["name"], **cell.probe["args"])
    return corruption


def threat_of(cell: Cell) -> Threat:
    """The threat an attack cell asks for."""
    if cell.threat is None:
        raise InputError(f"Cell {cell.id} attacks without a threat.")
    return Threat.from_dict(cell.threat)


def protocol_of(cell: Cell) -> Protocol:
    """The prompt protocol of a cell."""
    protocol: Protocol = registry.create("protocol", cell.protocol["name"], **cell.protocol["args"])
    return protocol


def label(cell: Cell) -> str:
    """A cell in a few words: `lab-b, point: pgd linf 8/255`; a replay adds `from lab-l (box)`."""
    how = "" if cell.clean else f"severity {cell.severity}" if cell.natural else threat_of(cell).label
    probe = f"{cell.probe['name']} {how}" if how else "clean"
    origin = f" from {cell.source} ({cell.probe['protocol']['name']})" if cell.replay else ""
    return f"{cell.who}, {cell.protocol['name']}: {probe}{origin}"


def probes_of(trial: Trial, select: Select) -> list[tuple[JsonDict, JsonDict]]:
    """(probe, threat) of a trial, options filled in with their defaults so that a changed default is another cell."""
    attack: Attack = registry.create("attack", trial.attack, **({"select": select} | dict(trial.args)))
    meta = registry.get("attack", trial.attack).meta
    objective = getattr(attack, "objective", None)
    if objective is not None and registry.get("objective", objective).meta.get("aim") == "towards":
        raise InputError(
            f"Objective '{objective}' needs a target mask, which an audit does not have.",
            hint="Use vanish, enlarge, bce or dice; or attack single images with redsam attack.",
        )
    if not trial.threats:
        raise InputError(f"Attack '{trial.attack}' came without a threat.", hint="Give it at least one eps.")
    probe = {"kind": "attack", **registry.spec_of(attack)}
    out = []
    for options in trial.threats:
        threat = Threat.from_dict(options)
        if threat.norm not in meta.get("norms", (threat.norm,)):
            raise InputError(
                f"Attack '{trial.attack}' does not search in {threat.norm}.",
                hint=f"It takes {', '.join(meta['norms'])}.",
            )
        out.append((json.loads(canonical(probe)), threat.to_dict()))
    return out


def changes_of(change: Change) -> list[JsonDict]:
    """The probes of a corruption, one for each severity, options filled in. Raises UnknownName or InputError."""
    if not change.severities:
        raise InputError(f"Corruption '{change.corruption}' came without a severity.", hint="Give it 1 to 5.")
    if "severity" in change.args:
        raise InputError("A severity stands among the options.", hint="Give it in `severities`.")
    needs = registry.get("corruption", change.corruption).meta.get("needs", ())
    if needs and not any(change.args.get(name) for name in needs):
        raise InputError(
            f"Corruption '{change.corruption}' needs {' or '.join(needs)}.", hint=f"Give it in `args`: {needs[0]}=FILE"
        )
    made = [registry.create("corruption", change.corruption, **change.args, severity=s) for s in change.severities]
    return [json.loads(canonical({"kind": "corruption", **registry.spec_of(one)})) for one in made]


def protocol_spec(name: str, args: Mapping[str, Any]) -> JsonDict:
    """The protocol part of a spec, options filled in."""
    spec: JsonDict = json.loads(canonical(registry.spec_of(registry.create("protocol", name, **args))))
    return spec


def with_limit(preset: Preset, limit: int | None) -> Preset:
    """The preset with another limit; None keeps its own, 0 lifts it."""
    return preset if limit is None else replace(preset, limit=limit or None)
