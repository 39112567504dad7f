"""`load` for texts: a detector and a segmenter by name, or SAM 3's concept detector."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from redsam.errors import CheckpointError, InputError
from redsam.models.base import Segmenter
from redsam.models.checkpoints import read_config, read_network, read_processor, read_tokenizer
from redsam.models.grounded import GroundedSegmenter, family_for, ground
from redsam.models.grounded_dino import GroundedDino
from redsam.models.loading import finish, load, resolve
from redsam.models.sam3_text import Sam3Text
from redsam.registry import get, register

EXAMPLE = "grounded:IDEA-Research/grounding-dino-base+facebook/sam-vit-base"
# transformers' class of each detector that takes a text.
DETECTORS = {"grounding-dino": "GroundingDinoForObjectDetection", "owlv2": "Owlv2ForObjectDetection"}


def load_text(
    prefix: str,
    spec: str,
    *,
    device: str | torch.device,
    dtype: torch.dtype | None,
    checkpointing: bool,
    name: str | None,
) -> Segmenter:
    """See `load`; prefix is `grounded`, `grounded-frozen` or `text`."""
    if prefix == "text":
        return _concepts(spec, device=device, dtype=dtype, checkpointing=checkpointing, name=name)
    first, plus, second = spec.partition("+")
    if not (first and plus and second):
        raise InputError(f"'{prefix}:{spec}' does not name a detector and a segmenter.", hint=f"Type: {EXAMPLE}")
    segmenter = load(second, device=device, dtype=dtype, checkpointing=checkpointing)
    detector, tokenizer, settings = read_detector(first)
    made = ground(
        detector.to(device),
        segmenter,
        tokenizer=tokenizer,
        name=name or f"{_short(first)}+{segmenter.name}",
        frozen_boxes=prefix == "grounded-frozen",
    )
    return with_processor(made, settings)


for _prefix in ("grounded", "grounded-frozen", "text"):
    register("opener", _prefix)(partial(load_text, _prefix))


def read_detector(spec: str) -> tuple[Any, Any, dict[str, Any]]:
    """A detector by hub id or folder, in float32: network, tokenizer, its processor's settings. Raises InputError,
    UnknownName, CheckpointError."""
    source = resolve(spec)
    if isinstance(source, Path) and source.is_file():
        raise InputError(f"'{spec}' is a file.", hint="Give the detector's folder or hub id.")
    kind = str(read_config(source, spec).get("model_type"))
    family_for(kind)
    if kind not in DETECTORS:
        raise InputError(f"A detector of type '{kind}' cannot be read.", hint=f"Known: {', '.join(DETECTORS)}.")
    tokenizer = read_tokenizer(source)
    if tokenizer is None:
        raise CheckpointError(f"'{spec}' has no tokenizer.", hint="Give a folder with tokenizer.json in it.")
    return read_network(DETECTORS[kind], source, spec).eval(), tokenizer, read_processor(source)


def with_processor(segmenter: GroundedSegmenter, settings: dict[str, Any]) -> GroundedSegmenter:
    """Take normalisation and size from the detector's preprocessor_config.json where they differ from the family's."""
    for key, attribute in (("image_mean", "detector_mean"), ("image_std", "detector_std")):
        value = settings.get(key)
        if isinstance(value, list) and len(value) == 3:
            setattr(segmenter, attribute, tuple(float(v) for v in value))
    size = settings.get("size")
    if (
        isinstance(size, dict)
        and {"shortest_edge", "longest_edge"} <= size.keys()
        and isinstance(segmenter, GroundedDino)
    ):
        segmenter.short, segmenter.long = int(size["shortest_edge"]), int(size["longest_edge"])
    return segmenter


def _concepts(
    spec: str, *, device: str | torch.device, dtype: torch.dtype | None, checkpointing: bool, name: str | None
) -> Segmenter:
    """SAM 3 by text, out of a folder or repository that may hold the video model with both networks."""
    source = resolve(spec)
    if isinstance(source, Path) and source.is_file():
        raise InputError(f"'{spec}' is a file.", hint="Type: text:facebook/sam3, or text:FOLDER")
    kind = str(read_config(source, spec).get("model_type"))
    if kind in ("sam3", "sam3_video"):
        from redsam.models.text import attach

        network = attach(read_network(Sam3Text.classes[0], source, spec), read_tokenizer(source))
        called = name or (source.resolve().name if isinstance(source, Path) else spec)
        return finish(
            network,
            Sam3Text,
            name=called,
            device=device,
            dtype=dtype or torch.float32,
            checkpointing=checkpointing,
            processor=read_processor(source),
        )
    made = load(spec, device=device, dtype=dtype, checkpointing=checkpointing, name=name)
    if not made.takes_text:
        known = ", ".join(e for e in ("sam3", "lab-text") if get("model", e))
        raise InputError(f"'{spec}' ({made.family}) takes no text.", hint=f"Families that do: {known}; or {EXAMPLE}")
    return made


def _short(spec: str) -> str:
    """A hub id as it is, of a folder the last part: where a model lies is no part of what it is."""
    return Path(spec).resolve().name if Path(spec).exists() else spec
