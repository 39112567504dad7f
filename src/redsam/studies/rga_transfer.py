"""rga-transfer: every attack that may be crafted on a surrogate, crafted on one source and shown to all victims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redsam import registry
from redsam.bench.presets import linf
from redsam.bench.spec import JsonDict
from redsam.registry import register
from redsam.studies.base import CLEAN_PREDICTION, GROUND_TRUTH, Request, Study
from redsam.studies.tables import NUMBERS, Table, beside, measured
from redsam.studies.uad_benchmark import transfer_rows

# On masks, then on features; the benchmark's own attacks are attack-sam-k, tap, ilpd, aa, pata, pata++, uad and rga.
ON_MASKS = ("pgd", "mifgsm", "difgsm", "tifgsm", "nifgsm", "sinifgsm", "vmifgsm", "attack-sam", "attack-sam-k",
            "cross-prompt", "segpgd", "s-ra", "t-ra")  # fmt: skip
ON_FEATURES = ("almost-nothing", "tap", "ilpd", "aa", "pata", "pata++", "uad", "rga")
# What an attack on masks aims at: of the prompts to be tested, one point and the exact box of each of few objects.
AIM: Mapping[str, Any] = {"points": 1, "boxes": 1, "max_objects": 4, "jitter": 0.0}


@register("study", "rga-transfer", paper="Region-Guided Attack on the Segment Anything Model (Liu et al.)", year=2024,
          url="https://arxiv.org/abs/2411.02974")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class RgaTransfer(Study):
    """Transfer from one source to all victims: the benchmark of UAD and RGA, mIoU +- sd, ASR@50, ASR@10.

    As published: `uad` prompts (5 points and 3 jittered boxes on each of the first 10 masks, one at a time), single
    mask output, IoU against ground truth pooled over prompts without a filter on clean correctness, eps 8/255, 40
    steps. prompting: fields of the `uad` that is tested with; aim: of the `uad` that attacks on masks aim at.
    Deviation: victims are what is given, a FastSAM as fastsam:PATH. Of attacks on masks the benchmark has only
    Attack-SAM-K, which draws its own points; the others aim, with one image, at one random point (the first that is
    tested) and the exact box of each of an image's first 4 objects: with all 80 test prompts the decoder would cost far
    more than the encoder. Their other options are their own.
    """

    attacks: tuple[str, ...] = ON_MASKS + ON_FEATURES
    level: int = 8
    steps: int = 40
    prompting: Mapping[str, Any] = field(default_factory=dict)
    aim: Mapping[str, Any] = field(default_factory=lambda: dict(AIM))

    transfers = True
    notes = ("RGA's own row was not to be had; the published rows are its benchmark's other attacks.",)

    def attacks_used(self) -> Sequence[str]:
        return self.attacks

    def measure(self, asked: Request) -> Sequence[Table]:
        trials = [self.stepped(name, linf(self.level), self.steps) for name in self.attacks]
        prompts = (self.aim, self.prompting)
        return [transfer_table("Transfer by victim and prompt kind", self, asked, trials, prompts, transfer_rows())]


def transfer_table(
    title: str,
    study: Study,
    asked: Request,
    trials: Sequence[Any],
    prompts: tuple[Mapping[str, Any], Mapping[str, Any]],
    theirs: list[JsonDict],
) -> Table:
    """Clean and attacked rows of every victim, for all prompts and each kind, the published rows beside. prompts: the
    fields of `uad`, for the attacker and for the test."""
    aim, prompting = prompts
    name = registry.spec_of(study)["name"]
    found = asked.matrix(name, trials, [("uad", aim)], [("uad", prompting)], select="single")
    ours = [
        measured(row, attack=entry.trial, victim=entry.victim, prompt=row["prompt_kind"])
        for entry, row in found.rows(references=[GROUND_TRUTH, CLEAN_PREDICTION])
    ]
    order = {name: i for i, name in enumerate(["clean", *(t.label or t.attack for t in trials)])}
    ours.sort(key=lambda row: order[row["attack"]])
    return Table(
        title=title, columns=("attack", "victim", "prompt", *NUMBERS), rows=beside(ours, theirs, by=("attack",))
    )
