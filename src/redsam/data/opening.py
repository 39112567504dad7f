"""open_data: a path or a name becomes a Dataset; the reader is found by asking each whether the path is its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from redsam import registry
from redsam.data.base import Dataset, Reader, shared_root
from redsam.errors import InputError


def open_data(
    path: str | Path | None = None, *, reader: str | None = None, limit: int | None = None, **options: Any
) -> Dataset:
    """Dataset of a folder or annotation file, of a shared set by its name ("bsds_test"), or of None / "demo".

    reader: name of a registered reader; found by itself when None. limit: at most so many images, evenly spaced.
    options: fields of the reader, such as kind="label". Raises InputError / UnknownName.
    """
    if path is None or path == "demo":
        path, reader = "demo", "demo"  # also beside a folder of that name: type ./demo for the folder
    where = Path(path).expanduser() if reader == "demo" else _locate(path)
    entries = sorted(registry.entries("reader"), key=lambda e: (e.meta.get("rank", 50), e.name))
    if reader is None:
        reader = next((e.name for e in entries if e.obj.accepts(where)), None)
        if reader is None:
            expected = "; ".join(f"{e.name}: {e.meta['expects']}" for e in entries if "expects" in e.meta)
            raise InputError(f"{where}: no reader knows this path.", hint=f"Expected one of: {expected}.")
    chosen: Reader = registry.create("reader", reader, **options)
    data = chosen.open(where)
    if not len(data):
        raise InputError(f"{where}: reader '{reader}' found no images.")
    return data.limit(limit)


def _locate(path: str | Path) -> Path:
    where = Path(path).expanduser()
    if where.exists():
        return where
    root = shared_root()
    for shelf in ("eval", "pool"):
        if root is not None and (root / shelf / str(path)).is_dir():
            return root / shelf / str(path)
    raise InputError(f"{where}: there is no such file or folder.", hint="Give a folder of images, or 'demo'.")
