"""eps-curve: mIoU over the budget, points and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from redsam import registry
from redsam.attacks.base import Attack
from redsam.bench.presets import Asked, linf
from redsam.registry import register
from redsam.studies.base import CLEAN_PREDICTION, GROUND_TRUTH, Request, Study
from redsam.studies.tables import NUMBERS, Table, beside, measured
from redsam.studies.uad_benchmark import budget_rows


@register("study", "eps-curve", paper="Unsegment Anything by Simulating Deformation (Lu et al.)", year=2024,
          url="https://arxiv.org/abs/2404.02585")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class EpsCurve(Study):
    """mIoU at eps 1, 2, 4, 8 and 16/255 with point and with box prompts, for an attack on masks and one on features.

    UAD's logs have eps 4, 8, 12 and 16 for its own attack and its baselines, points and boxes pooled. Deviation: one
    random point and the exact box of up to `max_objects` objects instead of `uad` prompts, and PGD beside UAD. A
    prompt-free attack is crafted once and asked with both.
    """

    attacks: tuple[str, ...] = ("pgd", "uad")
    levels: tuple[int, ...] = (1, 2, 4, 8, 16)
    steps: int = 40
    max_objects: int | None = 5

    transfers = True

    def attacks_used(self) -> Sequence[str]:
        return self.attacks

    def measure(self, asked: Request) -> Sequence[Table]:
        limit = {"max_objects": self.max_objects}
        both: list[Asked] = [("point", limit), ("box", limit)]
        rows = []
        for prompted in (True, False):
            trials = [
                t
                for t in (self.stepped(name, linf(*self.levels), self.steps) for name in self.attacks)
                if cast(Attack, registry.create("attack", t.attack, **t.args)).reads_masks() == prompted
            ]
            if not trials:
                continue
            found = asked.matrix("eps-curve", trials, both if prompted else both[:1], None if prompted else both)
            rows += [
                measured(row, attack=e.trial, victim=e.victim, prompt=row["prompt_kind"])
                for e, row in found.rows(references=[GROUND_TRUTH, CLEAN_PREDICTION])
            ]
        once = {(r["cell"], r["prompt"]): r for r in rows}  # both halves have the clean cells
        place = {name: i for i, name in enumerate(["clean", *self.attacks])}
        who = {s.name: i for i, s in enumerate(asked.everyone)}
        ours = sorted(once.values(), key=lambda r: (place[r["attack"]], who[r["victim"]], r["prompt"], r["eps"]))
        columns = ("attack", "victim", "prompt", "eps", *NUMBERS)
        return [Table(title="mIoU over the budget", columns=columns, rows=beside(ours, budget_rows(), by=("attack",)))]
