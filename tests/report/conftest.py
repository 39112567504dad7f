"""One small finished run, made once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # so that `fake` imports under any import mode
import fake


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OUT of a run with one failed image in every cell; do not write into it."""
    return fake.make_run(tmp_path_factory.mktemp("report") / "run", failed=[("broken.jpg", "the file is cut short")])
