"""Bench: plan -> cells -> executor -> store -> statistics. `audit` does all of it, `summarise` the last step alone;
`matrix` crafts on some models and tests on others."""

from redsam.bench.audit import audit
from redsam.bench.matrix import Entry, Matrix, matrix
from redsam.bench.presets import PRESETS, Change, Preset, Trial, preset
from redsam.bench.progress import Progress, Silent
from redsam.bench.spec import Cell
from redsam.bench.store import RunStore, read_records
from redsam.bench.summary import Summary, summarise

__all__ = [
    "PRESETS",
    "Cell",
    "Change",
    "Entry",
    "Matrix",
    "Preset",
    "Progress",
    "RunStore",
    "Silent",
    "Summary",
    "Trial",
    "audit",
    "matrix",
    "preset",
    "read_records",
    "summarise",
]
