"""redsam: red-team, measure and harden promptable segmentation models.

What most programs need is here; every room (`redsam.models`, `redsam.bench`, ...) has more. Names are imported on first
use, so `import redsam` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from redsam.attacks.base import Attack, AttackResult
    from redsam.bench.audit import audit
    from redsam.data import open_data, read_image, read_mask, write_png
    from redsam.defenses import DefendedSegmenter, load
    from redsam.errors import RedsamError
    from redsam.metrics import asr, boundary_iou, iou
    from redsam.models import automatic_masks
    from redsam.models.base import Segmenter
    from redsam.prompts import Prompt, box, mask, point, points
    from redsam.registry import create, register
    from redsam.report import render
    from redsam.threat import Budget, Threat
    from redsam.types import Sample, Scene, from_uint8, to_uint8

_HOMES = {
    "Attack": "attacks.base",
    "AttackResult": "attacks.base",
    "Budget": "threat",
    "DefendedSegmenter": "defenses",
    "Prompt": "prompts",
    "RedsamError": "errors",
    "Sample": "types",
    "Scene": "types",
    "Segmenter": "models.base",
    "Threat": "threat",
    "asr": "metrics",
    "audit": "bench.audit",
    "automatic_masks": "models",
    "boundary_iou": "metrics",
    "box": "prompts",
    "create": "registry",
    "from_uint8": "types",
    "iou": "metrics",
    "load": "defenses",
    "mask": "prompts",
    "open_data": "data",
    "point": "prompts",
    "points": "prompts",
    "read_image": "data",
    "read_mask": "data",
    "register": "registry",
    "render": "report",
    "to_uint8": "types",
    "write_png": "data",
}
_ROOMS = (
    "attacks", "bench", "data", "defenses", "metrics", "models", "objectives", "prompts", "registry", "report",
    "studies", "threat",
)  # fmt: skip
__all__ = [
    "Attack",
    "AttackResult",
    "Budget",
    "DefendedSegmenter",
    "Prompt",
    "RedsamError",
    "Sample",
    "Scene",
    "Segmenter",
    "Threat",
    "__version__",
    "asr",
    "audit",
    "automatic_masks",
    "boundary_iou",
    "box",
    "create",
    "from_uint8",
    "iou",
    "load",
    "mask",
    "open_data",
    "point",
    "points",
    "read_image",
    "read_mask",
    "register",
    "render",
    "to_uint8",
    "write_png",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"redsam.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'redsam' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"redsam.{home}"), name)
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
