"""Study: a published evaluation protocol as a named run.

A study is a frozen dataclass of plain data (steps, budgets, names of attacks with their options). `run` is final: it
limits the data, lets the study measure, writes OUT/study.json and OUT/study.md beside the usual summary and report.
A study names attacks by registry name; one that is not registered is an error, never a row that is missing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, final

from redsam import registry
from redsam.bench import Matrix, Progress, Silent, Trial, matrix, summarise
from redsam.bench.flight import Batching
from redsam.bench.presets import Asked, Options
from redsam.data import Dataset
from redsam.errors import InputError
from redsam.models.base import Segmenter
from redsam.models.values import Select
from redsam.studies.findings import Findings
from redsam.studies.tables import Table

GROUND_TRUTH, CLEAN_PREDICTION = "ground truth", "clean prediction"


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """What a study is run on. model: the source. victims: models that only answer. train: images to learn from."""

    model: Segmenter
    dataset: Dataset
    out: Path
    victims: tuple[Segmenter, ...] = ()
    train: Dataset | None = None
    seed: int = 0
    batch: Batching = 1
    progress: Progress = field(default_factory=Silent)
    command: str | None = None

    @property
    def everyone(self) -> tuple[Segmenter, ...]:
        """The source first, as its own victim, then the victims that are not the same model again."""
        found = {s.fingerprint(): s for s in (*reversed(self.victims), self.model)}
        own = self.model.fingerprint()
        return (self.model, *(s for key, s in reversed(found.items()) if key != own))

    def matrix(
        self,
        name: str,
        trials: Sequence[Trial],
        attacker: Sequence[Asked],
        test: Sequence[Asked] | None = None,
        *,
        select: Select = "iou",
        joint: bool = True,
    ) -> Matrix:
        """Craft on the model, test everyone (bench.matrix)."""
        return matrix(
            [self.model],
            self.everyone,
            self.dataset,
            trials=trials,
            attacker_protocols=attacker,
            test_protocols=test,
            out=self.out,
            name=name,
            select=select,
            joint=joint,
            seed=self.seed,
            batch=self.batch,
            progress=self.progress,
            command=self.command,
        )


@dataclass(frozen=True, kw_only=True)
class Study(ABC):
    """options: further fields of attacks, {"samples": 2}, for each attack of the study that has them."""

    options: Mapping[str, Any] = field(default_factory=dict)

    # Whether the study takes victims, and whether it needs images to learn from.
    transfers: ClassVar[bool] = False
    trains: ClassVar[bool] = False
    notes: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def measure(self, asked: Request) -> Sequence[Table]:
        """Run the matrices and make the tables, published rows among them."""

    def attacks_used(self) -> Sequence[str]:
        """Registry names of every attack that the study will run."""
        return ()

    def corruptions_used(self) -> Sequence[str]:
        """The same of corruptions."""
        return ()

    def trial(self, attack: str, threats: Sequence[Options], *, label: str = "", **args: Any) -> Trial:
        """A trial with the study's options; of `args` and options those that are None are the attack's own."""
        known = {f.name for f in fields(registry.get("attack", attack).obj)}
        chosen = {k: v for k, v in self.options.items() if k in known}
        chosen |= {k: v for k, v in args.items() if v is not None}
        return Trial(attack=attack, args=chosen, threats=tuple(threats), label=label)

    def stepped(
        self, attack: str, threats: Sequence[Options], steps: int | None, *, label: str = "", **args: Any
    ) -> Trial:
        """A trial of so many steps, if the attack has such a field."""
        has = "steps" in {f.name for f in fields(registry.get("attack", attack).obj)}
        return self.trial(attack, threats, label=label, **args, steps=steps if has else None)

    @final
    def run(
        self,
        model: Segmenter,
        dataset: Dataset,
        *,
        out: Path | str,
        victims: Sequence[Segmenter] = (),
        train: Dataset | None = None,
        limit: int | None = None,
        seed: int = 0,
        batch: Batching = 1,
        progress: Progress | None = None,
        command: str | None = None,
    ) -> Findings:
        """Measure into the folder `out` and return the findings. limit: at most so many images, evenly spaced. The same
        again goes on where it was stopped. Raises InputError for what cannot run, before anything does."""
        from redsam.report import render  # draws; the registry imports this file for every look-up

        spec = registry.spec_of(self)
        self.check(victims=victims, train=train)
        used = dataset.limit(limit or None)
        asked = Request(
            model=model, dataset=used, out=Path(out).expanduser(), victims=tuple(victims), train=train, seed=seed,
            batch=batch, progress=progress or Silent(), command=command,
        )  # fmt: skip
        tables = tuple(self.measure(asked))
        findings = Findings(
            study=spec,
            meta=registry.get("study", spec["name"]).meta,
            model=model.name,
            victims=tuple(v.name for v in victims),
            data=dataset.name,
            images=len(used),
            tables=tables,
            notes=self.notes,
            failures=len(summarise(asked.out).failures),
            out=asked.out,
        )
        findings.write()
        render(asked.out)
        return findings

    def check(self, *, victims: Sequence[object] = (), train: object = None) -> None:
        """Raise what can be wrong with a request before a model is loaded: an attack or corruption that is not
        registered (UnknownName), victims or training images where there must be none, or none where there must be
        some."""
        name = registry.spec_of(self)["name"]
        if victims and not self.transfers:
            raise InputError(f"Study '{name}' measures one model and takes no victims.", hint="Leave --victims out.")
        if train is not None and not self.trains:
            raise InputError(f"Study '{name}' learns from no images.", hint="Leave --train out.")
        if train is None and self.trains:
            raise InputError(f"Study '{name}' learns from other images first.", hint="Type: --train DIR")
        for attack in self.attacks_used():
            registry.get("attack", attack)
        for corruption in self.corruptions_used():
            registry.get("corruption", corruption)


def study(name: str, **fields_: Any) -> Study:
    """A study by name with other fields than the published. Raises UnknownName with the nearest ones."""
    made: Study = registry.create("study", name, **fields_)
    return made
