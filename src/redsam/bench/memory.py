"""Peak memory, how much there is to take, and running out of it, on whatever device.

What each number sees. CUDA: bytes that PyTorch has allocated on the device, exact; not the context, not what the
allocator holds in reserve. CPU: resident pages of the whole process, loaded libraries, the data set's photographs and
memory that the C library keeps for later among them; pages that were swapped out are missing. Linux lets a process
start its highest value anew, so that the peak is that of the work in between; where that is not allowed, and on other
systems, the highest value is that since the process began, and says nothing about any one piece of work.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from redsam.heap import trim

_WORDS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")
_SELF = Path("/proc/self")


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out: torch's own type, Python's, or a CPU allocator's words."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _WORDS)


def release() -> None:
    """Give freed memory back before trying again."""
    gc.collect()
    trim()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def reset_peak(device: torch.device) -> bool:
    """Start a new peak; False where only the highest value since the process began can be told."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        (_SELF / "clear_refs").write_text("5", encoding="ascii")  # resets the highest resident size, nothing else
    except OSError:
        return False
    return True


def peak_bytes(device: torch.device) -> int | None:
    """Highest number of bytes since `reset_peak` (or since the process began, where that said False)."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_mb(device: torch.device) -> float | None:
    """The same in MiB, for records."""
    found = peak_bytes(device)
    return None if found is None else round(found / 2**20, 1)


def held(device: torch.device) -> int | None:
    """Bytes now, of the kind that `peak_bytes` counts; None where they cannot be told."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    try:
        pages = int((_SELF / "statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def room(device: torch.device) -> int | None:
    """Bytes that can be taken beyond `held`, None where they cannot be told.

    CUDA: what is free on the device, within the share of it that this process was given, and what PyTorch holds in
    reserve. CPU: what Linux calls available, or less where a container's limit leaves less.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        reserved = torch.cuda.memory_reserved(device)
        told = getattr(torch.cuda, "get_per_process_memory_fraction", None)  # not in every PyTorch
        share = 1.0 if told is None else float(told(device))
        return max(0, int(min(free, share * total - reserved)) + reserved - torch.cuda.memory_allocated(device))
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
    return None if found is None else max(0, min([found, *container_rooms()]))


def container_rooms(told: Path = _SELF / "cgroup", mount: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """Bytes that every control group above this process leaves (cgroup 1 and 2). Files that it has read and can do
    without (inactive_file) count as free, as the kernel takes them back before it kills. told, mount: for tests."""
    try:
        lines = told.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds == "":
            top, names = mount, ("memory.max", "memory.current", "inactive_file ")
        elif "memory" in kinds.split(","):
            top, names = mount / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ")
        else:
            continue
        group = top / path.lstrip("/")
        # Inside a container the path may be that of the host: then only the top is there, and is the container's own.
        for folder in (group, *group.parents):
            if (left := _left(folder, *names)) is not None:
                yield left
            if folder == top:
                break


def _left(folder: Path, limit: str, usage: str, files: str) -> int | None:
    """Bytes that one control group leaves; None without a limit."""
    try:
        most = (folder / limit).read_text(encoding="ascii").strip()
        if most == "max":
            return None
        used = int((folder / usage).read_text(encoding="ascii"))
        stat = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    spare = next((int(line.removeprefix(files)) for line in stat if line.startswith(files)), 0)
    return int(most) - used + spare
