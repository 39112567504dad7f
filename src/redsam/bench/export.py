"""export: the records of a run as one Parquet table, a row for each prompt, for whatever reads tables."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from redsam.bench.files import storing
from redsam.bench.spec import Cell, JsonDict, canonical
from redsam.bench.store import RunStore, scan
from redsam.bench.table import COLUMNS
from redsam.errors import InputError, MissingExtra

ROWS = 20_000  # in memory at once
_TEXT = ("cell", "model", "weights", "defense", "probe", "attack", "args", "source", "norm", "threat", "data",
         "protocol", "objects", "select", "sample", "status", "reason", "flag", "image", "clean_image", "kind",
         "geometry", "gone")  # fmt: skip
_WHOLE = ("severity", "seed", "height", "width", "l0", "steps", "queries", "batch", "prompt", "object")
_REAL = ("eps", "linf", "l2", "psnr", "ssim", "shift", "seconds", "peak_mb", "area", *COLUMNS, "pred_iou_clean",
         "pred_iou_adv")  # fmt: skip
_TRUTH = ("joint",)
_MASKS = ("rle_gt", "rle_clean", "rle_adv")
_OF_IMAGE = ("linf", "l2", "l0", "psnr", "ssim", "shift", "steps", "queries", "flag", "image")


def export(run: Path | str, *, out: Path | str, masks: bool = False) -> int:
    """Write OUT with a row for each prompt, or for each image that has none (failed, skipped); returns the rows.

    Columns: what the cell asked, the image's status, size and budget, the prompt's overlaps (iou_adv_gt and the like),
    None where not measured. Where every prompt has an image of its own, budget and image are the prompt's. masks: the
    run-length codes, too, as JSON. Written whole or not at all. Raises InputError, MissingExtra without pyarrow.
    """
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise MissingExtra("pyarrow", "parquet", needed_for="An export to Parquet") from None
    kinds = dict.fromkeys(_TEXT, arrow.string()) | dict.fromkeys(_WHOLE, arrow.int64())
    kinds |= dict.fromkeys(_REAL, arrow.float64()) | dict.fromkeys(_TRUTH, arrow.bool_())
    kinds |= dict.fromkeys(_MASKS, arrow.string()) if masks else {}
    schema = arrow.schema(list(kinds.items()))
    path = Path(out).expanduser()
    if path.is_dir():
        raise InputError(f"{path} is a folder.", hint=f"Type: --out {path}/records.parquet")
    part = path.with_name(f".{path.name}.part")
    count = 0
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with parquet.ParquetWriter(part, schema, compression="zstd") as writer:
                for block in _blocks(RunStore(run), masks):
                    writer.write_table(arrow.Table.from_pylist(block, schema=schema))
                    count += len(block)
            part.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink()
            raise
    return count


def _blocks(store: RunStore, masks: bool) -> Iterator[list[JsonDict]]:
    block: list[JsonDict] = []
    for one in store.cells():
        asked = _asked(one.cell)
        last = {r["sample"]: number for number, r in enumerate(scan(one.samples))}
        for number, record in enumerate(scan(one.samples)):
            if last[record["sample"]] != number:
                continue
            block += _rows(asked, record, masks)
            if len(block) >= ROWS:
                yield block
                block = []
    yield block


def _asked(cell: Cell) -> JsonDict:
    """The columns that all rows of a cell share."""
    return {
        "cell": cell.id,
        "model": cell.who,
        "weights": cell.model.get("fingerprint"),
        "defense": cell.defense["label"] if cell.defense else None,
        "probe": cell.probe["kind"],
        "attack": cell.probe["name"],
        "args": canonical(cell.probe.get("args", {})),
        "source": cell.source,
        "norm": cell.threat["norm"] if cell.threat else None,
        "eps": cell.eps,
        "threat": canonical(dict(cell.threat)) if cell.threat else None,
        "severity": cell.severity,
        "data": cell.data["name"],
        "protocol": cell.protocol["name"],
        "objects": cell.objects,
        "select": cell.select,
        "seed": cell.seed,
        "joint": cell.joint,
    }


def _rows(asked: JsonDict, record: JsonDict, masks: bool) -> Iterator[JsonDict]:
    own = ("sample", "status", "reason", "height", "width", "seconds", "peak_mb", "batch", "clean_image", *_OF_IMAGE)
    base = asked | {name: record.get(name) for name in own}
    for prompt in record["prompts"] or [{}]:
        row = base | {name: prompt[name] for name in (*_REAL, *_OF_IMAGE) if name in prompt}
        row |= {name: prompt.get(name) for name in ("prompt", "kind", "object", "gone")}
        row["geometry"] = _json(prompt.get("geometry"))
        if masks:
            row |= {name: _json(prompt.get(name)) for name in _MASKS}
        yield row


def _json(value: Any) -> str | None:
    return None if value is None else canonical(value)
