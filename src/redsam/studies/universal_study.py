"""universal: perturbations learned on some images, laid onto images that they never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redsam import registry
from redsam.attacks.universal import UniversalAttack
from redsam.attacks.universal_training import train
from redsam.bench.plan import describe, slice_of
from redsam.bench.presets import Asked, linf
from redsam.bench.spec import JsonDict, digest
from redsam.data import Dataset
from redsam.errors import InputError
from redsam.registry import register
from redsam.studies.base import CLEAN_PREDICTION, GROUND_TRUTH, Request, Study
from redsam.studies.tables import NUMBERS, Table, beside, measured, published
from redsam.studies.uad_benchmark import share
from redsam.threat import Threat

NOISE = "uniform noise"
SOURCE = "Vanish into Thin Air, table 2, image segmentation, SAM2-T, trained with point prompts"
SETS = ("YouTube-VOS", "DAVIS", "MOSE")
PUBLISHED: dict[str, tuple[float, float, float]] = {
    "UAPGD": (54.42, 50.11, 61.76),
    "VOSPGD": (50.05, 48.56, 53.52),
    "SegPGD": (56.22, 49.96, 61.02),
    "Attack-SAM": (64.18, 55.53, 63.92),
    "S-RA": (63.53, 51.04, 54.38),
    "UAD": (56.12, 51.80, 61.87),
    "darksam": (64.38, 52.99, 64.38),
    "uap-sam2": (27.54, 48.45, 50.13),
}


@register("study", "universal", paper="Vanish into Thin Air: Cross-prompt Universal Adversarial Attacks for SAM2 "
          "(Zhou et al.)", year=2025, url="https://arxiv.org/abs/2510.24195")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class Universal(Study):
    """Clean, uniform noise of the same eps, and every universal attack, learned on other images; points and boxes.

    eps 10/255 as DarkSAM, UMI-GRAT and UAP-SAM2 have it, mIoU with ground truth. Perturbations are kept in
    OUT/universal and go on when a training was stopped. epochs: None is each attack's own. UMI-GRAT is laid on without
    its steps on the image, which would make it image-specific. Deviation: photographs instead of videos, and the
    published rows are averages over videos' frames.
    """

    attacks: tuple[str, ...] = ("uap-contrast", "darksam", "umi-grat", "uap-sam2")
    level: int = 10
    epochs: int | None = None
    max_objects: int | None = 5

    transfers = True
    trains = True

    def attacks_used(self) -> Sequence[str]:
        return (*self.attacks, "pgd")

    def measure(self, asked: Request) -> Sequence[Table]:
        assert asked.train is not None, "run has seen to it"
        if asked.train.fingerprint == asked.dataset.fingerprint:
            raise InputError(
                "The images to learn from and to test on are the same.", hint="Give --train and --data apart."
            )
        threats = linf(self.level)
        noise = self.trial("pgd", threats, label=NOISE, steps=1, step_size=0.0, keep_best=False)  # its start alone
        trials = [noise]
        for attack in self.attacks:
            path = self._learn(attack, asked, asked.train)
            trials.append(self.trial(attack, threats, artefact=path, steps=0 if attack == "umi-grat" else None))
        limit = {"max_objects": self.max_objects}
        kinds: list[Asked] = [("point", limit), ("box", limit)]
        found = asked.matrix("universal", trials, kinds[:1], kinds)
        ours = [
            measured(row, attack=e.trial, victim=e.victim, prompt=row["prompt_kind"])
            for e, row in found.rows(references=[GROUND_TRUTH, CLEAN_PREDICTION])
        ]
        place = {name: i for i, name in enumerate(["clean", NOISE, *self.attacks])}
        ours.sort(key=lambda r: place[r["attack"]])
        columns = ("attack", "victim", "prompt", *NUMBERS)
        title = f"Universal perturbations of {self.level}/255, learned on {len(asked.train)} other images"
        return [Table(title=title, columns=columns, rows=beside(ours, published_rows(), by=("attack",)))]

    def _learn(self, attack: str, asked: Request, images: Dataset) -> str:
        """Train, or go on, or take what is there; the file's name says from what, so that another training is another
        cell."""
        made: UniversalAttack = registry.create("attack", attack, **self.trial(attack, linf(self.level)).args)
        told: dict[str, Any] = {
            "attack": registry.spec_of(made), "model": describe(asked.model), "level": self.level, "seed": asked.seed,
            "epochs": self.epochs, "data": slice_of(images),
        }  # fmt: skip
        if asked.model.defense:  # learned through a defence
            told["defense"] = asked.model.defense
        path = asked.out / "universal" / f"{attack}-{digest(told)}.safetensors"
        protocol = registry.create("protocol", "point", max_objects=self.max_objects)
        threat = Threat(eps=self.level / 255)
        train(
            made, asked.model, images, threat=threat, out=path, protocol=protocol, epochs=self.epochs, seed=asked.seed
        )
        return str(path)


def published_rows() -> list[JsonDict]:
    """UAP-SAM2's comparison, one row for each attack and data set."""
    return [
        published(SOURCE, attack=attack, victim=f"SAM2-T on {data}", prompt="point", miou=share(miou), eps=10,
                  reference=GROUND_TRUTH)
        for attack, values in PUBLISHED.items()
        for data, miou in zip(SETS, values, strict=True)
    ]  # fmt: skip
