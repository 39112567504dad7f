"""Run command lines in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from redsam.cli import main


@dataclass(frozen=True)
class Ran:
    """What a command line left."""

    code: int
    out: str
    err: str


@pytest.fixture
def redsam(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """`redsam("list", "attacks")` runs that command line."""

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def refused(redsam: Callable[..., Ran]) -> Callable[..., str]:
    """The one line a command line is refused with: exit code 2, nothing on stdout, no traceback."""

    def run(*arguments: object) -> str:
        ran = redsam(*arguments)
        lines = ran.err.strip().splitlines()
        assert ran.code == 2, ran
        assert len(lines) == 1, ran.err
        assert lines[0].startswith("redsam: ")
        assert "Traceback" not in ran.err
        assert ran.out == ""
        return lines[0]

    return run
