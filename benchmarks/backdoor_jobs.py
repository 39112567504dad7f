"""Jobs of the backdoor table: trainings, measurements, searches and purifiers, each with a file of its own."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redsam import registry
from redsam.backdoor import Poison, Settings, measure, plant
from redsam.backdoor.detect import SEARCHES, probes, sizes_of, strip
from redsam.backdoor.invert import Inversion
from redsam.backdoor.strip import Strip
from redsam.bench.files import safe_name, write_json
from redsam.data import open_data
from redsam.defenses import chain
from redsam.models import load
from redsam.models.sam_adapter import Adapter

RATES = (0.01, 0.05, 0.1, 0.2)
SEEDS, CLEAN_SEEDS = 3, 5  # clean models: at least five, so that "no clean model is flagged" says something
MODELS = {
    **{(0.0, seed): f"clean-{seed}" for seed in range(CLEAN_SEEDS)},
    **{(rate, seed): f"badsam-{rate:g}-{seed}" for rate in RATES for seed in range(SEEDS)},
}
CLEAN = [name for (rate, _), name in MODELS.items() if not rate]
PURIFIED = [name for (rate, _), name in MODELS.items() if rate == 0.1]
# SETTINGS, published -> here: 20 epochs -> --epochs 10 and learning rate 2e-4 -> --lr 1e-3, because lab-b is small and
# starts as the model it was; CAMO -> ecssd and lowcontrast, the salient objects at hand; scale 32 -> 8, which leaves
# the generator 20 channels (ViT-B's has 24; lab-b's has 5 at the published scale). Tried before: 3 epochs at 1e-3 or
# 2e-3, with batches of 2 or 4, from lab-b or from a model customised first, leave an ASR of 0; 8 epochs 0.91 and 0.89
# at a rate of 10 % (two seeds).
ADAPTER = Adapter(scale=8)
DETECT, COUNT, STRIP_IMAGES = 40, 6, 20
# Seconds of one core: a step of 8 pictures, a picture measured, a step of a search on one picture, STRIP a picture.
COSTS = {"train": 0.95, "measure": 0.15, "detect": 0.08, "strip": 0.04}
# Of these, what is registered. Diffusion at the longest side of lab-b's frame, which is all that it sees. What a blur
# must destroy is a square of 15 % of the side: the published factor of 4 keeps its mean colours, 64 does not. The same
# strength (t = 600) for DiffPure, and a Gaussian as wide, so that it is the guidance that is compared.
WANTED = ("jpeg", "gaussian", "gaussian:sigma=2", "gaussian:sigma=30", "median", "median:size=5",
          "diffpure:large=residual", "diffpure:large=residual,t=600,steps=10", "zip:large=residual",
          "zip:large=residual,start=300,steps=6", "zip:large=residual,factor=64,start=600,steps=10")  # fmt: skip
PURIFYING = {"zip": 8.0, "diffpure": 4.3}  # seconds a picture, clean or triggered; of the others, nothing to speak of


def purifiers() -> list[str]:
    """Names of the purifiers to try, those that this version has."""
    known = {e.name for e in registry.entries("defense") if e.meta.get("group") == "purifier"}
    return [text for text in WANTED if text.split(":")[0] in known]


@dataclass(frozen=True, kw_only=True)
class Job:
    """kind: train, measure, detect or purify. name: of the model, for purify with @ and the purifier."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"

    @property
    def stage(self) -> int:
        """Jobs of an earlier stage come first."""
        return 0 if self.kind == "train" else 1

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.name.split("@")[0]

    @property
    def rate(self) -> float:
        """Of the model's poisoning."""
        return next(rate for (rate, _), name in MODELS.items() if name == self.model)

    @property
    def seed(self) -> int:
        """Of the model's training."""
        return next(seed for (_, seed), name in MODELS.items() if name == self.model)

    def file(self, work: Path) -> Path:
        """What it leaves when it is done."""
        if self.kind == "train":
            return work / "models" / self.name / "backdoor.json"
        return work / self.kind / f"{safe_name(self.name)}.json"


def jobs(chains: Sequence[str], only: Sequence[str] = ()) -> list[Job]:
    """All; only: kinds or names of some."""
    made = [Job(kind=kind, name=name) for kind in ("train", "measure", "detect") for name in MODELS.values()]
    made += [Job(kind="purify", name=f"{name}@{text}") for text in chains for name in PURIFIED]
    return [j for j in made if not only or j.kind in only or j.model in only]


def read(job: Job, work: Path) -> dict[str, Any] | None:
    """What a finished job found."""
    path = job.file(work)
    if not path.is_file():
        return None
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return told


def seconds(job: Job, args: argparse.Namespace) -> float:
    """About what a job costs on one core."""
    if job.kind == "train":
        pictures = min(args.train_limit or 939, 939)
        full = COSTS["train"] * args.epochs * -(-pictures // 8)
        return min(full, 60 * args.minutes) if args.minutes else full
    if job.kind == "detect":
        superimposed = COSTS["strip"] * STRIP_IMAGES * 2 * Strip().overlays
        return COSTS["detect"] * args.steps * args.count * len(SEARCHES) + superimposed
    passed = sum(PURIFYING.get(one.split(":")[0], 0.0) for one in job.name.partition("@")[2].split("|"))
    return (COSTS["measure"] + 2 * passed) * (args.purify_limit if job.kind == "purify" else args.limit)


def work(job: Job, args: argparse.Namespace) -> None:
    """Carry out a job, or what is left of it."""
    poison = Poison(rate=job.rate, seed=job.seed)
    home = args.work / "models" / job.model
    if job.kind == "train":
        settings = Settings(epochs=args.epochs, lr=args.lr, seed=job.seed, minutes=args.minutes)
        model = load(args.model, device=args.device)
        plant(model, open_data(args.train).limit(args.train_limit), out=home, poison=poison, adapter=ADAPTER,
              settings=settings)  # fmt: skip
        return
    model = load(home, device=args.device, name=job.model)
    data = open_data(args.test).limit(args.limit)
    if job.kind == "measure":
        told = measure(model, data, poison).to_dict()
    elif job.kind == "purify":
        some = open_data(args.test).limit(args.purify_limit)
        told = measure(model, some, poison, purifiers=chain(job.name.split("@")[1])).to_dict()
    else:
        found = sizes_of(model, probes(model, data, count=args.count), Inversion(steps=args.steps), aims=SEARCHES)
        separation = strip(model, probes(model, data, count=min(STRIP_IMAGES, args.limit)), poison, Strip())
        told = {
            "found": [{"aim": f.aim, "size": f.size, "reached": f.reached, "asked": f.asked} for f in found],
            "strip": vars(separation),
        }
    if "rows" in told:  # masks are for the report; the table needs none
        told["rows"] = [{k: v for k, v in row.items() if k != "masks"} for row in told["rows"]]
    write_json(job.file(args.work), told)
