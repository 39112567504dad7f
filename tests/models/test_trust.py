"""Pickles stay closed until somebody says that they are trusted."""

from __future__ import annotations

from pathlib import Path

import pytest

from redsam.cli import main
from redsam.errors import CheckpointError, RedsamError
from redsam.models import load
from redsam.models.trust import check_trust, trusting


def test_a_pickle_is_refused_with_the_reason() -> None:
    with pytest.raises(CheckpointError, match="run whatever code its author put into it") as caught:
        check_trust(Path("FastSAM-s.pt"))
    assert "--trust-checkpoint" in str(caught.value) and "trust=True" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_trust_ends_with_its_context() -> None:
    with trusting():
        check_trust(Path("a.pt"))
        with trusting(False), pytest.raises(CheckpointError):
            check_trust(Path("a.pt"))
    with pytest.raises(CheckpointError):
        check_trust(Path("a.pt"))


def test_fastsam_without_ultralytics_or_trust_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "FastSAM-s.pt"
    path.write_bytes(b"\x80\x02.")
    with pytest.raises(RedsamError) as caught:
        load(f"fastsam:{path}")
    assert "\n" not in str(caught.value)
    assert "AGPL" in str(caught.value) or "pickle" in str(caught.value)


def test_the_command_line_takes_it_before_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--trust-checkpoint", "list", "models"]) == 0
    assert "fastsam" in capsys.readouterr().out
    with pytest.raises(CheckpointError):
        check_trust(Path("a.pt"))
