"""Memory that is kept: fewer page faults, the same numbers, and a switch."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from redsam.heap import keep
kept = {kept} and keep()
x = torch.arange(5_000_000, dtype=torch.float32)
for _ in range(20):  # until the heap is as large as it will be
    y = (x.sin() + 1).sum()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    y = (x.sin() + 1).sum()
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, float(y).hex())
"""


def program(kept: bool, **env: str) -> tuple[bool, int, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(kept=kept)], capture_output=True, text=True, check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | env,
    )  # fmt: skip
    said, faults, value = done.stdout.split()
    return said == "1", int(faults), value


def test_what_was_freed_is_used_again() -> None:
    said, faults, value = program(True)
    if not said:
        pytest.skip("no glibc")
    _, without, same = program(False)
    assert value == same
    if not without:  # some sandboxes' kernels count no page faults
        pytest.skip("page faults are not counted here")
    # Two buffers of 20 MB a round, in pages of 4 kB at most.
    assert without > 10 * 2 * 20_000_000 / 2**21 and faults < without / 20


def test_the_environment_switches_it_off() -> None:
    said, _, _ = program(True, REDSAM_KEEP_MEMORY="0")
    assert not said
