"""matrix: images crafted on source models with the attacker's prompts, shown to victim models with other prompts.

An attack cell of a source crafts and stores its images once; every other pair of victim and test protocol is a replay
cell that reads them. A source asked again with the attacker's own prompts is that attack cell itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from redsam.bench.flight import Batching
from redsam.bench.objects import Objects, find_objects
from redsam.bench.plan import CLEAN, Plan, identity, probes_of, protocol_spec, slice_of
from redsam.bench.presets import Asked, Trial
from redsam.bench.progress import Progress, Silent
from redsam.bench.run import carry_out
from redsam.bench.spec import Cell, JsonDict
from redsam.bench.summary import Summary
from redsam.data import Dataset
from redsam.errors import InputError
from redsam.models.base import Segmenter
from redsam.models.values import Select


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One field of the matrix. trial: label of the attack, "clean" for none; source, attacker: model and protocol (its
    name) the images were crafted on, "" when clean; victim, test: model and protocol that were asked."""

    trial: str
    source: str
    attacker: str
    victim: str
    test: str
    cell: Cell


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """What a matrix found. summary: everything in the folder. entries: the fields of this matrix, in order."""

    summary: Summary
    entries: tuple[Entry, ...]

    def rows(self, *, kind: str | None = None, references: Sequence[str] = ()) -> Iterator[tuple[Entry, JsonDict]]:
        """Each field with each of its rows of the summary, only of a prompt kind and of the first of `references` that
        the row's field has, where these are given."""
        found: dict[str, list[JsonDict]] = {}
        for row in self.summary.cells:
            found.setdefault(row["cell"], []).append(row)
        for entry in self.entries:
            mine = found.get(entry.cell.id, [])
            there = [r for r in references if any(row["reference"] == r for row in mine)]
            for row in mine:
                if (not there or row["reference"] == there[0]) and kind in (None, row["prompt_kind"]):
                    yield entry, row


def matrix(
    sources: Sequence[Segmenter],
    victims: Sequence[Segmenter],
    dataset: Dataset,
    *,
    trials: Sequence[Trial],
    attacker_protocols: Sequence[Asked],
    test_protocols: Sequence[Asked] | None = None,
    out: Path | str,
    name: str = "matrix",
    limit: int | None = None,
    objects: Objects | None = None,
    select: Select = "iou",
    joint: bool = True,
    seed: int = 0,
    batch: Batching = 1,
    progress: Progress | None = None,
    command: str | None = None,
) -> Matrix:
    """Craft every trial on every source with each of the attacker's protocols, test every victim with each test
    protocol (None: with the attacker's own), into the folder `out`, beside what is there.

    limit: at most so many images, evenly spaced; None or 0 takes all. select: which of several masks is the answer, and
    is attacked unless a trial says otherwise. joint: one adversarial image for all prompts of an image; False gives
    each its own, which is then tested with the prompts of the same object. objects: as in `audit`; automatic objects
    are each model's own. Finished cells do not run again, so another victim costs its own cells only.
    Raises InputError for a plan that cannot run; images that fail are records with a reason.
    """
    dataset = dataset.limit(limit or None)
    found = objects or find_objects(dataset)
    planned = plan_matrix(
        [identity(s) for s in sources],
        [identity(v) for v in victims],
        trials=trials,
        attacker_protocols=attacker_protocols,
        test_protocols=test_protocols,
        rest={"data": slice_of(dataset), "objects": found, "select": select, "seed": seed, "joint": joint},
    )
    columns = [*planned.sources, *planned.victims]
    plan = Plan(preset=name, by_model=tuple(map(tuple, columns)), samples=dataset.ids)
    summary = carry_out(
        out, [*sources, *victims], dataset, plan, progress=progress or Silent(), batch=batch, command=command
    )
    return Matrix(summary=summary, entries=planned.entries)


@dataclass(frozen=True, kw_only=True)
class Planned:
    """sources: cells of each source, attacks only. victims: of each victim, clean cells and replays. A cell that stands
    in both or twice runs once. entries: the fields, victim by victim."""

    sources: tuple[tuple[Cell, ...], ...]
    victims: tuple[tuple[Cell, ...], ...]
    entries: tuple[Entry, ...]


def plan_matrix(
    sources: Sequence[JsonDict],
    victims: Sequence[JsonDict],
    *,
    trials: Sequence[Trial],
    attacker_protocols: Sequence[Asked],
    test_protocols: Sequence[Asked] | None,
    rest: Mapping[str, Any],
) -> Planned:
    """Every cell of a matrix, in an order in which images exist before they are replayed. sources, victims: the models
    as `identity` has them. rest: the other fields of a cell. Raises InputError for what cannot be meant."""
    if not (sources and victims):
        raise InputError("A matrix needs a source model and a victim.", hint="Type: redsam list models")
    if not attacker_protocols:
        raise InputError("A matrix needs a prompt protocol for the attacker.", hint="Type: redsam list protocols")
    given = [protocol_spec(name, args) for name, args in attacker_protocols]
    tests = None if test_protocols is None else [protocol_spec(name, args) for name, args in test_protocols]
    probes = [
        (trial.label or trial.attack, probe, threat)
        for trial in trials
        for probe, threat in probes_of(trial, rest["select"])
    ]
    crafted = [
        [
            (label, Cell(**source, probe=probe, threat=threat, protocol=protocol, **rest))
            for protocol in given
            for label, probe, threat in probes
        ]
        for source in sources
    ]
    entries: list[Entry] = []
    columns: list[tuple[Cell, ...]] = []
    for victim in victims:
        mine: list[Entry] = []
        for test in tests or given:
            clean = Cell(**victim, probe=CLEAN, threat=None, protocol=test, **{**rest, "joint": True})
            mine.append(_entry("clean", None, clean))
            for label, cell in (pair for pairs in crafted for pair in pairs):
                if tests is not None or cell.protocol == test:
                    mine.append(_entry(label, cell, replay(cell, victim, test)))
        entries += mine
        columns.append(tuple(e.cell for e in mine))
    lines = tuple(tuple(cell for _, cell in pairs) for pairs in crafted)
    seen: set[str] = set()
    return Planned(
        sources=tuple(_fresh(line, seen) for line in lines),
        victims=tuple(_fresh(line, seen) for line in columns),
        entries=tuple(entries),
    )


def replay(source: Cell, victim: JsonDict, protocol: JsonDict) -> Cell:
    """The cell that shows the images of an attack cell to a victim (as `identity` has it), asked by a protocol; the
    attack cell itself where nothing differs. Raises InputError where the images mean nothing to those prompts."""
    same_model = victim["model"]["fingerprint"] == source.model["fingerprint"] and victim["defense"] == source.defense
    if same_model and protocol == source.protocol:
        return source
    assert source.threat is not None, "a clean cell has no images to replay"
    if protocol != source.protocol:
        who = f"{source.probe['name']} crafted with '{source.protocol['name']}'"
        if source.threat["norm"] == "shift":
            raise InputError(
                f"{who} moves these very prompts; '{protocol['name']}' asks others.",
                hint="Test it with the attacker's own protocol.",
            )
        if not source.joint and source.objects != "annotated":
            raise InputError(
                f"{who} has an image for each prompt; without annotated objects nothing says which belongs to which.",
                hint="Attack all prompts together (joint), or give data with masks.",
            )
    if not same_model and not source.joint and source.objects != "annotated":
        raise InputError(
            "Automatic objects are each model's own, so images made for one prompt each cannot be shown to another.",
            hint="Attack all prompts together (joint), or give data with masks.",
        )
    probe = {
        "kind": "replay",
        "name": source.probe["name"],
        "args": source.probe["args"],
        "source": dict(source.model) | ({"defense": source.defense} if source.defense else {}),
        "protocol": dict(source.protocol),
        "of": source.id,
    }
    threat = dict(source.threat) if same_model else {**source.threat, "knowledge": "transfer"}
    return replace(source, **victim, probe=probe, threat=threat, protocol=protocol)


def _entry(label: str, source: Cell | None, cell: Cell) -> Entry:
    return Entry(
        trial=label,
        source=source.who if source else "",
        attacker=source.protocol["name"] if source else "",
        victim=cell.who,
        test=cell.protocol["name"],
        cell=cell,
    )


def _fresh(cells: Sequence[Cell], seen: set[str]) -> tuple[Cell, ...]:
    """The cells that were not there yet."""
    new = {c.id: c for c in cells if c.id not in seen}
    seen |= set(new)
    return tuple(new.values())
