"""The loop of every training: steps until the budget of steps or minutes is spent, the rate by a schedule, a bar, and a
state kept every few minutes."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

from progress import Run
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from team import Team

console = Console()
ALONE = Team()
Log = dict[str, float]


def rate(progress: float) -> float:
    """Share of the peak rate: a short warm-up, flat, then down to nothing over the last 60 %."""
    if progress < 0.02:
        return progress / 0.02
    return 1.0 if progress < 0.4 else 0.5 * (1 + math.cos(math.pi * (progress - 0.4) / 0.6))


def until_spent(
    now: Run, args: argparse.Namespace, *, name: str, lr: float,
    step: Callable[[float], Log], keep: Callable[[Log, bool], None], team: Team = ALONE,
) -> None:  # fmt: skip
    """Train until the larger of steps done / args.steps and minutes spent / args.minutes is 1.

    lr: peak rate. step: one step at this progress 0..1; its numbers, "loss" among them. keep: called by the process
    that leads, every args.save minutes and, with True, at the end, with the numbers as running means.
    """
    began, saved_at, log = time.monotonic() - 60 * now.spent, time.monotonic(), Log()
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.1f} %"),
               TimeElapsedColumn())  # fmt: skip
    with Progress(*columns, console=console, disable=not (console.is_terminal and team.leads)) as bar:
        task = bar.add_task(name, total=1.0)
        while True:
            now.spent = team.agree((time.monotonic() - began) / 60)
            progress = max(now.step / args.steps, now.spent / args.minutes)
            if progress >= 1:
                break
            for opt in now.opts:
                for group in opt.param_groups:
                    group["lr"] = rate(progress) * lr
            for kind, value in step(progress).items():
                log[kind] = 0.98 * log.get(kind, value) + 0.02 * value
            bar.update(task, completed=progress, description=f"{name} step {now.step} loss {log['loss']:.4f}")
            if team.leads and time.monotonic() - saved_at > 60 * args.save:
                saved_at = time.monotonic()
                keep(log, False)
    if team.leads:
        keep(log, True)
