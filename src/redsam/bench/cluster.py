"""Joining or starting Ray, and what a worker gets of a machine. Ray is imported when it is asked for."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from redsam.errors import InputError, MissingExtra

STORE_BYTES = 256 * 2**20  # for pictures on their way; what does not fit goes to the disk
GIGABYTE = 2**30


@dataclass(frozen=True, kw_only=True)
class Ray:
    """Where workers run. address: of a cluster, "auto" for the one at hand, None starts one on this machine. workers:
    how many, None as many as there is room for. gpus: of a GPU for each worker, a share (0.5), a number, or the memory
    it needs ("12GB"); None takes one each where there are any. threads: CPU threads of each worker."""

    address: str | None = None
    workers: int | None = None
    gpus: float | str | None = None
    threads: int = 1


def require() -> Any:
    """The package. Raises MissingExtra."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise MissingExtra("ray", "ray", needed_for="The executor 'ray'") from None
    return ray


@contextlib.contextmanager
def connected(settings: Ray) -> Iterator[Any]:
    """Ray, joined or started; one that was running before is left running."""
    ray = require()
    if ray.is_initialized():
        yield ray
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
    if settings.address:
        del quiet["include_dashboard"]
        try:
            ray.init(address=settings.address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            said = str(error).split("\n")[0]
            raise InputError(
                f"There is no Ray cluster at '{settings.address}': {said}", hint="Type: ray start --head"
            ) from error
    else:
        cores = max(os.cpu_count() or 1, (settings.workers or 1) * settings.threads)
        quiet |= {"_node_ip_address": "127.0.0.1", "object_store_memory": STORE_BYTES}
        # Ray runs workers at niceness 15, where a busy machine starves them.
        try:
            ray.init(num_cpus=cores, _system_config={"worker_niceness": 0}, **quiet)
        except Exception as error:  # Ray raises the plain class where its own processes do not answer in half a minute
            said = " ".join(str(error).split())
            raise InputError(f"Ray did not start: {said}", hint="Give this machine less other work.") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def share_of(gpus: float | str | None, memory: int | None, *, there: float) -> float:
    """GPUs of a worker: a number as it is, a memory ("12GB") as its share of `memory` bytes, rounded up to hundredths.
    there: GPUs of the cluster. Raises InputError."""
    if gpus is None:
        return 1.0 if there else 0.0
    text = str(gpus).strip().upper()
    try:
        share = float(text.removesuffix("GB"))
        if text.endswith("GB"):
            share = math.ceil(100 * share * GIGABYTE / memory) / 100 if memory else 1.0
    except ValueError:
        raise InputError(f"'{gpus}' is no share of a GPU.", hint="Type: --gpus-per-worker 0.5 or 12GB") from None
    if not (math.isfinite(share) and share >= 0) or (share > 1 and (share != int(share) or text.endswith("GB"))):
        raise InputError(f"A worker cannot have {gpus} of a GPU.", hint="Type: --gpus-per-worker 0.5 or 12GB")
    if share > there:
        raise InputError(f"There is no GPU for workers ({there:g} in all).", hint="Type: --gpus-per-worker 0")
    return share


def room(ray: Any, settings: Ray) -> tuple[float, int]:
    """GPUs of each worker, and how many workers: as many as the machines that are there now hold, unless said."""
    there = ray.cluster_resources()
    gpus, memory = float(there.get("GPU", 0)), None
    if str(settings.gpus).upper().endswith("GB") and gpus:
        memory = int(ray.get(ray.remote(num_gpus=0.01, num_cpus=0)(_total_memory).remote()))
    share = share_of(settings.gpus, memory, there=gpus)
    count = int(float(there.get("CPU", 1)) // settings.threads)
    if share:
        nodes = [node["Resources"].get("GPU", 0) for node in ray.nodes() if node.get("Alive")]
        count = sum(int(n / share + 1e-9) for n in nodes)
    return share, settings.workers or max(1, count)


def _total_memory() -> int:
    """Bytes of a worker's GPU."""
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory)
