"""Where text goes: results to stdout, progress and complaints to stderr; libraries that talk are asked not to."""

from __future__ import annotations

import os
import sys
import warnings as python_warnings
from typing import Any, TextIO

from rich.console import Console


class Stopped(Exception):
    """Ctrl-C, with what to tell about it."""


def out() -> Console:
    """Results. Made on each use, so that it follows a redirected stdout."""
    return Console(highlight=False, soft_wrap=True)


def err() -> Console:
    """Progress."""
    return Console(stderr=True, highlight=False)


def complain(text: str) -> None:
    """One line on stderr, whatever line breaks the text has."""
    print(f"redsam: {' '.join(text.split())}", file=sys.stderr)  # noqa: T201


def share_cores() -> None:
    """Let torch's threads sleep while they wait, not spin; before torch is imported, and unless the user says else.

    Spinning threads take the cores from each other when anything else runs on the machine: with as many busy processes
    as cores, the same PGD steps took 10.3 s spinning and 0.9 s sleeping. No number changes.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def quieten(*, warnings: bool) -> None:
    """No progress bars and chatter from transformers and the hub; warnings of other libraries only with --debug.

    These variables change what is printed, never a number; what the user has set stays.
    """
    for name, value in {
        "TRANSFORMERS_VERBOSITY": "error",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }.items():
        os.environ.setdefault(name, value)
    if "transformers" in sys.modules:  # imported before us: in a notebook or a test
        from transformers.utils import logging

        logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if warnings:
        python_warnings.showwarning = _one_line


def _one_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> Any:
    """Ours in one line; another library's is for its developers."""
    if f"{os.sep}redsam{os.sep}" in filename:
        complain(f"note: {message}")
