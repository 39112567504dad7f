"""The store: append-only records that survive kill -9, a full disk and a second process.

OUT/plan.json, OUT/images/<sample>.png (each clean image once), OUT/records/<cell>/{spec.json, env.json, samples.jsonl,
images/<sample>.png, DONE}; where every prompt has an image of its own they are images/<sample>.p<prompt>.png. A record
is one line, written and synced after its adversarial PNG is whole on disk; so every record's picture exists, and a line
cut short by a crash is cut away before the next one is appended.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from torch import Tensor

from redsam.bench.files import png_bytes, read_json, safe_name, storing, write_bytes, write_json
from redsam.bench.spec import Cell, JsonDict
from redsam.errors import InputError
from redsam.storage import locked

_loads: Callable[[bytes], Any]
try:  # the extra `large`: the same values in a fraction of the time
    from orjson import loads as _loads
except ImportError:

    def _loads(line: bytes) -> Any:
        return json.loads(line.decode())  # of bytes, the encoding would be guessed line by line


def read_records(path: Path) -> list[JsonDict]:
    """Records of a samples.jsonl in the order written, without a torn last line; InputError for a broken one before."""
    return list(scan(path))


def scan(path: Path) -> Iterator[JsonDict]:
    """The same one by one, so that a file of any size takes the memory of one record."""
    return (record for record, _ in scan_lines(path))


def scan_lines(path: Path) -> Iterator[tuple[JsonDict, bytes]]:
    """Each whole record and its line."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("no end of line")
                record = _loads(line)
            except ValueError as error:
                if not file.read(1):
                    return  # torn by a crash: the sample counts as not done
                raise InputError(
                    f"{path}, line {number}: broken record.", hint="Delete that cell's folder; it will run again."
                ) from error
            yield record, line


class CellStore:
    """One cell's folder. Open and append while holding the lock of its RunStore."""

    def __init__(self, root: Path, cell: Cell) -> None:
        self.cell = cell
        self.folder = root / "records" / cell.id
        self.samples = self.folder / "samples.jsonl"
        self._file: IO[bytes] | None = None

    @property
    def done(self) -> bool:
        """Whether every sample has its record."""
        return (self.folder / "DONE").exists()

    def open(self, env: Mapping[str, Any]) -> list[str]:
        """Make the folder or go on with it: write spec and env, cut a torn line away, return the names of the samples
        that have their record."""
        spec = self.folder / "spec.json"
        if not spec.exists():
            write_json(self.folder / "env.json", env)
            write_json(spec, self.cell.spec())
        with storing(self.samples):
            names, whole = [], 0
            for record, line in scan_lines(self.samples):
                names.append(str(record["sample"]))
                whole += len(line)
            self._file = self.samples.open("ab", buffering=0)  # unbuffered: nothing waits for a later, failing flush
            self._file.truncate(whole)
        return names

    def note(self, facts: Mapping[str, Any]) -> None:
        """Add to what env.json says, or replace it there."""
        path = self.folder / "env.json"
        write_json(path, (read_json(path) if path.exists() else {}) | dict(facts))

    def append(self, record: JsonDict) -> None:
        """Add one record, on the disk when this returns. Its picture must have been put before."""
        line = json.dumps(record, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
        self.extend([f"{line}\n".encode()])

    def extend(self, lines: Sequence[bytes]) -> None:
        """Add whole lines of another samples.jsonl, synced once."""
        assert self._file is not None, "open the cell first"
        with storing(self.samples):
            rest = memoryview(b"".join(lines))
            while rest:  # a raw write may take only part; what it leaves on an error is a torn line, cut on reopening
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())

    def put_image(self, sample: str, image: Tensor, *, prompt: int | None = None) -> Path:
        """Store a delivered uint8 3xHxW image, of one prompt where each has its own; returns where it lies."""
        apart = "" if prompt is None else f".p{prompt}"
        path = self.folder / "images" / f"{safe_name(sample)}{apart}.png"
        write_bytes(path, png_bytes(image))
        return path

    def finish(self) -> None:
        """Mark the cell as complete."""
        self.close()
        write_bytes(self.folder / "DONE", b"")

    def close(self) -> None:
        """Close the records file; safe to call twice."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # all that matters was synced by `append`
                file.close()


class RunStore:
    """An output folder: one writer at a time, many readers. ambiguous: names of several images; a clean one of such a
    name is always stored by its content, too, so that it matters nothing which comes first."""

    def __init__(self, root: Path | str, *, ambiguous: Collection[str] = ()) -> None:
        self.root = Path(root).expanduser()
        self._ambiguous = frozenset(ambiguous)

    def cell(self, cell: Cell) -> CellStore:
        """The folder of one cell (not made yet)."""
        return CellStore(self.root, cell)

    def cells(self) -> list[CellStore]:
        """Every cell that has a spec, ordered by folder name. Raises InputError where there are no records."""
        found = sorted((self.root / "records").glob("*/spec.json"))
        if not found:
            raise InputError(f"{self.root} holds no records.", hint=f"Type: redsam audit MODEL --out {self.root}")
        return [CellStore(self.root, Cell.from_spec(read_json(path))) for path in found]

    def put_clean(self, sample: str, image: Tensor) -> str:
        """Store a clean uint8 image once; returns its path below the root. Another image of that name gets another."""
        return self.put_clean_png(sample, png_bytes(image))

    def put_clean_png(self, sample: str, content: bytes) -> str:
        """The same of an image that is a PNG already."""
        name = safe_name(sample)
        path = self.root / "images" / f"{name}.png"
        if sample in self._ambiguous or (path.exists() and path.read_bytes() != content):
            path = path.with_name(f"{name}-{hashlib.sha256(content).hexdigest()[:8]}.png")
        if not path.exists():
            write_bytes(path, content)
        return path.relative_to(self.root).as_posix()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder as its only writer; StorageError when another process does."""
        with locked(self.root / "lock", of=self.root):
            yield
