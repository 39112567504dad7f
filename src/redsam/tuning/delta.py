"""Delta: what a tuning changed, as a small safetensors file that turns the original model into the hardened one.

The file holds the patches (patches.py), the fingerprints of the model before and after, and the method. Laid on the
same original it gives the weights of the saved folder bit for bit.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from redsam.attacks.artefact import read, store
from redsam.errors import InputError
from redsam.models.base import Segmenter
from redsam.tuning.patches import Patch, patch_of

KIND = "model delta"
AGAIN = "Make it again: redsam harden MODEL --method METHOD --data DIR --out DIR"


@dataclass(frozen=True, kw_only=True, eq=False)
class Delta:
    """method: `{"name", "args"}`. model: name of the original; before, after: fingerprints of its weights. notes: free
    JSON (what it was trained on)."""

    method: Mapping[str, Any]
    model: str
    before: str
    after: str
    patches: Sequence[Patch]
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def numbers(self) -> int:
        """Trained numbers, counted."""
        return sum(patch.numbers for patch in self.patches)

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        tensors = {f"{i}.{k}": v for i, patch in enumerate(self.patches) for k, v in patch.tensors().items()}
        told = {k: getattr(self, k) for k in ("method", "model", "before", "after", "notes")}
        patches = [patch.to_dict() for patch in self.patches]
        store(path, tensors, {"kind": KIND, **told, "patches": patches, "content": digest(tensors)})

    @classmethod
    def load(cls, path: str | Path) -> Delta:
        """Read a file; InputError for one that is missing, broken, damaged, a pickle, or no delta."""
        tensors, meta = reading(Path(path), AGAIN)
        if meta.get("kind") != KIND:
            raise InputError(f"{path}: no delta of a model, the file holds a {meta.get('kind')}.", hint=AGAIN)
        if meta.get("content") != digest(tensors):
            raise InputError(f"{path}: damaged, its numbers are not those that were written.", hint=AGAIN)
        try:
            patches = [patch_of(p, part(tensors, f"{i}.")) for i, p in enumerate(meta["patches"])]
            return cls(patches=patches, **{k: meta[k] for k in ("method", "model", "before", "after", "notes")})
        except KeyError as error:
            raise InputError(f"{path}: the delta lacks {error}.", hint=AGAIN) from None

    def apply(self, segmenter: Segmenter) -> None:
        """Change the model in place. Raises InputError when it is not the original that the delta was made for.

        Where another linear algebra library rounds a singular vector differently, the last bit of a weight may differ:
        then a warning says that the result is equal up to rounding only.
        """
        found = segmenter.fingerprint()
        if found != self.before:
            what = "is the hardened model already" if found == self.after else f"is another ({found})"
            raise InputError(
                f"The delta was made for {self.model} with weights {self.before}; {segmenter.name} {what}.",
                hint="Load the original in float32.",
            )
        lay(segmenter.model, self.patches)
        if segmenter.fingerprint() != self.after:
            warnings.warn(
                f"{segmenter.name}: equal to the hardened model up to rounding, not in every bit; this machine's "
                "linear algebra rounds differently from the one the delta was made on",
                stacklevel=2,
            )


def apply_delta(segmenter: Segmenter, file: str | Path) -> Segmenter:
    """Lay a delta file on the original, in place; see `Delta.apply`."""
    Delta.load(file).apply(segmenter)
    return segmenter


@torch.no_grad()
def lay(model: nn.Module, patches: Sequence[Patch]) -> None:
    """Change the patched weights in place. Raises InputError for a weight that is not there."""
    named = dict(model.named_parameters())
    for patch in patches:
        if patch.weight not in named:
            raise InputError(f"The model has no weight '{patch.weight}'.", hint="Is it the model the delta is for?")
    made = [(named[p.weight], p.made(named[p.weight])) for p in patches]  # all or none
    for weight, value in made:
        weight.copy_(value)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (first 16 hex digits) of names and contents."""
    out = hashlib.sha256()
    for key, value in sorted(tensors.items()):
        out.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        out.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return out.hexdigest()[:16]


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose name begins so, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def reading(path: Path, hint: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """`artefact.read` with the hint that fits."""
    try:
        return read(path)
    except InputError as error:
        raise InputError(error.message.replace("; perturbations are safetensors", ""), hint=hint) from error
