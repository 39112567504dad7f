"""How a run tells what it does: a small protocol the command line fills with a progress bar, and tests with a list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from redsam.bench.spec import Cell


class Progress(Protocol):
    """Called from the run's own thread, in this order; nothing here may raise."""

    def start(self, *, cells: int, finished: int, images: int, units: tuple[int, int] | None = None) -> None:
        """The plan is made: so many cells, so many of them finished earlier, so many images each. units: where cells
        differ in their images, records of the whole plan and of the finished cells; given in that case alone."""

    def cell(self, cell: Cell, *, label: str, images: int, finished: int) -> None:
        """A cell begins: so many images, so many of them recorded earlier."""

    def image(self, record: Mapping[str, Any]) -> None:
        """One record was written."""

    def stop(self, message: str) -> None:
        """The run ended early; the message says how to go on."""


class Silent:
    """Says nothing."""

    def start(self, *, cells: int, finished: int, images: int, units: tuple[int, int] | None = None) -> None: ...

    def cell(self, cell: Cell, *, label: str, images: int, finished: int) -> None: ...

    def image(self, record: Mapping[str, Any]) -> None: ...

    def stop(self, message: str) -> None: ...
