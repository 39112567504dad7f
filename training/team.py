"""Several processes that train one model together on the cores of one machine, or one process that trains alone.

On 4 cores one process of 4 threads keeps only about 2 of them busy (the operations are small); four processes of one
thread each, whose gradients are averaged over gloo, keep all 4.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn


@dataclass(frozen=True, kw_only=True)
class Team:
    """This process is `rank` of `size`; `parent` started them all."""

    rank: int = 0
    size: int = 1
    parent: int = 0

    @property
    def leads(self) -> bool:
        """Rank 0 keeps the clock, logs and saves."""
        return self.rank == 0

    def average_gradients(self, model: nn.Module) -> None:
        """Every gradient becomes the mean over the team; one that a process lacks counts as zero."""
        if self.size == 1:
            return
        live = [p for p in model.parameters() if p.requires_grad]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in live])
        dist.all_reduce(flat)
        flat /= self.size
        start = 0
        for parameter in live:
            parameter.grad = flat[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()

    def agree(self, value: float) -> float:
        """The leader's value, everywhere: clocks differ, and the team must stop at the same step."""
        if self.size == 1:
            return value
        if os.getppid() != self.parent:
            raise SystemExit("the process that started this team is gone")
        told = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(told, src=0)
        return float(told)


def run(work: Callable[..., None], *, size: int, args: tuple[Any, ...]) -> None:
    """Call work(team, *args) in `size` processes, or here when size is 1. Tensors in `args` lie in shared memory."""
    if size == 1:
        work(Team(), *args)
        return
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as folder:  # a file to meet at: a port may be taken
        meet = f"file://{folder}/meet"
        torch.multiprocessing.spawn(_enter, args=(work, size, meet, os.getpid(), args), nprocs=size)


def _enter(rank: int, work: Callable[..., None], size: int, meet: str, parent: int, args: tuple[Any, ...]) -> None:
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=size)
    try:
        work(Team(rank=rank, size=size, parent=parent), *args)
    finally:
        dist.destroy_process_group()
