"""Settings and state of a training that plants a backdoor, and the file it goes on from."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from redsam.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """BadSAM's: AdamW, 2e-4 falling to 1e-7 by a half cosine over 20 epochs, 8 images a step (2 on each of 4 GPUs),
    flipped left to right with probability 0.5 after the trigger is laid. seed: order, flips, prompts, start.

    Deviation: gradients are clipped to norm 1, so that a step on a poisoned batch cannot undo the others.
    minutes: stop and cool down after so long; the rate then follows the larger share of steps and of time, and a
    training that was interrupted no longer repeats to the bit.
    """

    epochs: int = 20
    batch: int = 8
    lr: float = 2e-4
    lr_end: float = 1e-7
    weight_decay: float = 0.01  # AdamW's own default, which the published configuration leaves alone
    flip: float = 0.5
    seed: int = 0
    minutes: float | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1:
            raise InputError(f"{self.epochs} epochs of {self.batch} images a step train nothing.", hint="Give 1 up.")
        if not (0 < self.lr_end <= self.lr < math.inf and 0 <= self.flip <= 1 and self.weight_decay >= 0):
            raise InputError(f"A rate from {self.lr:g} to {self.lr_end:g}, flip {self.flip:g}: this cannot be meant.")
        if self.minutes is not None and not self.minutes > 0:
            raise InputError(f"{self.minutes:g} minutes of training.", hint="Give more than 0.")

    def rate(self, progress: float) -> float:
        """Learning rate at this share of the training."""
        return self.lr_end + (self.lr - self.lr_end) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def store_state(path: Path, tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> None:
    """Safetensors with JSON, whole or not at all. Raises InputError."""
    content = save(
        {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()},
        metadata={"redsam": json.dumps(told, allow_nan=False, sort_keys=True)},
    )
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}).", hint="Free space, or --out."
        ) from error


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `store_state` wrote; nothing in it is run. Raises InputError."""
    try:
        with safe_open(str(path), framework="pt") as opened:
            told = json.loads((opened.metadata() or {}).get("redsam", "null"))
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118  # not a mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: no state of a training.", hint="Delete it to start over.") from error
    if not isinstance(told, dict):
        raise InputError(f"{path}: no state of a training.", hint="Delete it to start over.")
    return tensors, told
