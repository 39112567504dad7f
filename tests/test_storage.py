"""Documents that say their schema: read, absent, broken, of another schema; and one trainer at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from redsam.errors import InputError
from redsam.storage import StorageError, alone, read_document


def test_a_document_is_read_and_an_absent_one_is_none(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    assert read_document(file, schema=2, hint="Go.") is None
    file.write_text('{"schema": 2, "n": 3}')
    assert read_document(file, schema=2, hint="Go.") == {"schema": 2, "n": 3}


@pytest.mark.parametrize(
    ("content", "said"),
    [(b'{"schema": 2', "cannot be read"), (b"\xff\xfe\xfa", "cannot be read"), (b'{"schema": 1}', "not of schema 2"),
     (b"[2]", "not of schema 2")],
)  # fmt: skip
def test_what_is_no_such_document_is_refused_in_a_line(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(InputError, match=said) as told:
        read_document(file, schema=2, hint="Make it again.")
    assert "\n" not in str(told.value)


def test_a_second_trainer_is_refused_and_the_lock_goes_with_the_training(tmp_path: Path) -> None:
    out = tmp_path / "made"
    lock = tmp_path / "made.lock"
    with pytest.raises(KeyboardInterrupt), alone(out):
        with pytest.raises(StorageError, match="is being written by process"), alone(out):
            pass
        raise KeyboardInterrupt
    assert lock.exists()  # of an interrupted training; held by nobody
    with alone(out):
        out.mkdir()
    assert not lock.exists()
