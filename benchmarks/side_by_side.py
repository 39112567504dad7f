"""Jobs side by side, each in a process: how long each took, and what went wrong, while the others go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

import torch

from redsam import heap

Job = TypeVar("Job")


def run_all(
    todo: Sequence[Job], work: Callable[[Job], None], *, name: Callable[[Job], str], jobs: int, threads: int
) -> list[str]:
    """Run `work` on each, `jobs` of them at a time, with `threads` shared by all; prints a line for each that ends.

    work: can be pickled (a function of a module, or a partial of one). Returns one line for each that failed.
    """
    wrong = []
    with ProcessPoolExecutor(jobs) as pool:
        waiting = {pool.submit(_timed, work, job, max(1, threads // jobs)): job for job in todo}
        for count, done in enumerate(as_completed(waiting), start=1):
            label, error = name(waiting[done]), done.exception()
            told = (
                f"{type(error).__name__}: {error}"
                if error
                else "{:.0f} s, {:.0f} s of processor time".format(*done.result())
            )
            print(f"{count}/{len(todo)} {label}: {told}", flush=True)
            if error:
                wrong.append(f"{label} ({told})")
    return wrong


def _timed(work: Callable[[Job], None], job: Job, threads: int) -> tuple[float, float]:
    heap.keep()
    torch.set_num_threads(threads)
    began, busy = time.perf_counter(), time.process_time()
    work(job)
    return time.perf_counter() - began, time.process_time() - busy
