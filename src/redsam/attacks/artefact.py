"""Artefact: a universal perturbation as a file, with what it was made from; and how it is laid onto an image.

Saved as safetensors with one tensor `delta`, float32 3xSxS in [-eps, eps], [0, 1] units, and one metadata entry
`redsam`, JSON. One entry, because safetensors writes several in no fixed order and equal trainings shall give equal
bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from redsam.errors import InputError
from redsam.models.resample import resize
from redsam.storage import write_bytes

Fit = Literal["stretch", "tile"]
SCHEMA = 1
# float32 noise of clamping to eps, which is a Python float.
NOISE = 1e-6
AGAIN = "Make it again: redsam universal ATTACK --out FILE"


@dataclass(frozen=True, kw_only=True, eq=False)
class Artefact:
    """delta: float32 3xSxS in [-eps, eps], [0, 1] units. attack: `{"name", "args"}` of the recipe. model, fingerprint:
    the segmenter it was made on. data, protocol: fingerprint of the training images, and how they were prompted. ids:
    the images used, so that a test can leave them out; skipped: id and reason of the others. steps: gradients taken."""

    delta: Tensor
    attack: Mapping[str, Any]
    model: str
    fingerprint: str
    eps: float
    norm: str
    data: str
    protocol: Mapping[str, Any] | None
    ids: Sequence[str]
    epochs: int
    steps: int
    seed: int
    skipped: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = tuple(self.delta.shape)
        if (
            self.delta.dtype != torch.float32
            or len(shape) != 3
            or shape[0] != 3
            or shape[1] != shape[2]
            or not shape[1]
        ):
            raise InputError(f"A universal perturbation is float32 3xSxS, not {self.delta.dtype} {shape}.")
        if self.norm != "linf":
            raise InputError(f"A universal perturbation is bounded in linf, this one says '{self.norm}'.")
        if not (math.isfinite(self.eps) and 0 <= self.eps <= 1):
            raise InputError(f"A universal perturbation of eps {self.eps} cannot be meant.")
        if not float(self.delta.abs().max()) <= self.eps + NOISE:  # also catches NaN
            raise InputError(f"The perturbation reaches {float(self.delta.abs().max()):g}, it says eps {self.eps:g}.")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, all but the perturbation itself."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "delta"} | {"size": len(self.delta[0])}

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        store(path, {"delta": self.delta}, {"kind": "universal perturbation", **self.to_dict()})

    @classmethod
    def load(cls, path: str | Path) -> Artefact:
        """Read a file; InputError for one that is missing, broken, a pickle, or no perturbation."""
        tensors, meta = read(Path(path))
        known = {f.name for f in fields(cls)} - {"delta"}
        lacking = sorted((known - set(meta)) | ({"delta"} - set(tensors)))
        if meta.get("kind") != "universal perturbation" or lacking:
            what = f"lacks {lacking[0]}" if lacking else f"holds a {meta.get('kind')}"
            raise InputError(f"{path}: no universal perturbation, the file {what}.", hint=AGAIN)
        try:
            return cls(delta=tensors["delta"], **{name: meta[name] for name in known})
        except InputError as error:
            raise InputError(f"{path}: {error.message}", hint=AGAIN) from None
        except TypeError as error:  # a text where a number should be
            raise InputError(f"{path}: its description is broken ({error}).", hint=AGAIN) from None

    def on(self, size: tuple[int, int], fit: Fit = "stretch") -> Tensor:
        """The perturbation for an image of (height, width); see `lay`."""
        return lay(self.delta, size, fit)


def lay(delta: Tensor, size: tuple[int, int], fit: Fit = "stretch") -> Tensor:
    """3xSxS onto (height, width) as 3xHxW, differentiable. "stretch": bilinear, antialiased, an average of values and
    therefore inside the same eps. "tile": repeated from the top left corner in its own pixels, cut at the far sides."""
    if fit == "stretch":
        return resize(delta[None], size)[0]
    if fit != "tile":
        raise InputError(f"There is no fit '{fit}'.", hint=f"Choose from {', '.join(get_args(Fit))}.")
    down, across = (math.ceil(n / side) for n, side in zip(size, delta.shape[-2:], strict=True))
    return delta.repeat(1, down, across)[:, : size[0], : size[1]]


def store(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Safetensors with JSON, whole or not at all, on the disk when this returns. Raises StorageError."""
    text = json.dumps({"schema": SCHEMA, **meta}, allow_nan=False, sort_keys=True)
    content = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, metadata={"redsam": text})
    write_bytes(path, content)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `store` wrote. Nothing in the file is run. Raises InputError."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).", hint="Check the path.") from error
    if head[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        raise InputError(
            f"{path}: a pickle, which may run anything when it is opened; perturbations are safetensors.", hint=AGAIN
        )
    try:
        with safe_open(str(path), framework="pt") as opened:
            text = (opened.metadata() or {}).get("redsam", "{}")
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118  # not a mapping
        meta = json.loads(text)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: broken, or no safetensors file.", hint=AGAIN) from error
    if not isinstance(meta, dict) or meta.get("schema") != SCHEMA:
        raise InputError(f"{path}: not written by this version of redsam.", hint=AGAIN)
    return tensors, meta
