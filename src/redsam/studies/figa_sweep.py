"""figa-sweep: how many pixels a step may move, from one (JSMA) to all (FGSM*)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from redsam.registry import register
from redsam.studies.base import CLEAN_PREDICTION, Request, Study
from redsam.studies.tables import Table, measured

COLUMNS = ("attack", "k", "n_images", "n_failed", "modified pixels", "MSE", "miou", "iterations", "seconds per image",
           "reference", "origin")  # fmt: skip


@register("study", "figa-sweep", paper="Red-Teaming Segment Anything Model (Jankowski et al.)", year=2024,
          url="https://arxiv.org/abs/2404.02067")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class FigaSweep(Study):
    """FIGA with k = 1, 10^2, 10^3, 10^4, 2 10^4, 3 10^4 and all pixels: modified pixels, MSE, IoU, iterations, time.

    One grey level a step, no ball (the steps are the bound), the single mask's own logits, IoU with the clean mask, the
    goal's own stop rule (25 steps, until IoU < 0.01 for "reverse"). Deviation: the paper prompts with the boxes that a
    text finds; here it is the exact box of one object an image. A k larger than an image's pixels is a failed image.
    steps: of FGSM*; None is the goal's own. figa_steps: of every other k: FIGA moves few pixels at a time, so it may
    take more steps (ours; the paper's number was not to be had): at 25 it leaves twice the IoU that it leaves at 100
    (k = 10^4, benchmarks/claim_checks.py). Every k has the same number, so a small k is judged on few pixels.
    """

    ks: tuple[int | None, ...] = (1, 100, 1000, 10000, 20000, 30000, None)
    goal: Literal["reverse", "zero"] = "reverse"
    steps: int | None = None
    figa_steps: int | None = 100
    prompt: str = "box"
    max_objects: int | None = 1

    notes = (
        "The paper's table (its k, MSE, IoU, times) was not to be had. What is told of it: FIGA does as well as FGSM* "
        "at a smaller MSE and with fewer modified pixels, and far faster than JSMA.",
    )

    def attacks_used(self) -> Sequence[str]:
        return ("figa",)

    def measure(self, asked: Request) -> Sequence[Table]:
        free = ({"norm": "linf", "eps": 1.0},)
        trials = []
        for k in self.ks:
            # None is a value of k here (all pixels), so it goes past `trial`, which leaves out what is None.
            steps = self.steps if k is None else self.figa_steps
            one = self.trial("figa", free, label=label(k), goal=self.goal, steps=steps)
            trials.append(type(one)(attack="figa", args={**one.args, "k": k}, threats=one.threats, label=one.label))
        protocol = (self.prompt, {"max_objects": self.max_objects})
        found = asked.matrix("figa-sweep", trials, [protocol], select="single", joint=False)
        names = {label(k): "all" if k is None else k for k in self.ks}
        rows = []
        for entry, row in found.rows(references=[CLEAN_PREDICTION]):
            if entry.trial == "clean":
                continue
            line = measured(row, attack=entry.trial, k=names[entry.trial])
            line |= {"modified pixels": row["l0_mean"], "MSE": row["mse"], "iterations": row["steps_mean"]}
            rows.append(line | {"seconds per image": row["seconds"] / row["n_images"] if row["n_images"] else None})
        return [Table(title="FIGA by the number of pixels a step moves", columns=COLUMNS, rows=tuple(rows))]


def label(k: int | None) -> str:
    """`figa, k = 100`."""
    return {None: "figa, k = all (FGSM*)", 1: "figa, k = 1 (JSMA)"}.get(k, f"figa, k = {k}")
