"""Small random models of every family, for tests and demonstrations of the interface."""

from __future__ import annotations

from typing import cast

import torch

from redsam.models.base import Segmenter
from redsam.models.hf import TransformersSegmenter, cast_model
from redsam.models.init import initialise
from redsam.registry import get


def tiny(
    family: str = "sam",
    seed: int = 0,
    image_size: int = 64,
    *,
    dtype: torch.dtype = torch.float32,
    checkpointing: bool = False,
) -> Segmenter:
    """A random model of `family` (a registry name such as "sam" or "sam2"), some 0.1 M parameters, on the CPU.

    image_size: side of the model's own frame, a multiple of 32. Raises UnknownName, and MissingExtra when the family
    needs a package that is not installed.
    """
    kind = cast(type[TransformersSegmenter], get("model", family).obj)
    kind.require()
    with torch.random.fork_rng(devices=[]):  # transformers draws its own start before ours replaces it
        model = initialise(kind.tiny(image_size), seed=seed)
    name = f"tiny-{family}"
    return kind(cast_model(model, device="cpu", dtype=dtype), name=name, checkpointing=checkpointing)
