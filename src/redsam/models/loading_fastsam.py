"""`load("fastsam:PATH")`: a checkpoint of ultralytics, or a folder of this package's own; `+CLIP` for texts."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from redsam.errors import CheckpointError, InputError
from redsam.models.base import Segmenter
from redsam.models.checkpoints import read_config, read_network, read_tokenizer
from redsam.models.fastsam import FastSam
from redsam.models.loading import finish, resolve
from redsam.models.text import attach
from redsam.registry import register


@register("opener", "fastsam")
def open_fastsam(
    spec: str,
    *,
    device: str | torch.device,
    dtype: torch.dtype | None,
    checkpointing: bool,
    name: str | None,
) -> Segmenter:
    """See `load`; spec is PATH or PATH+CLIP, CLIP a hub id or folder. Raises MissingExtra, InputError,
    CheckpointError."""
    FastSam.require()
    from redsam.models.fastsam_net import unpickled

    first, plus, second = spec.partition("+")
    path = Path(first).expanduser()
    if not path.exists():
        raise InputError(f"There is no file or folder '{first}'.", hint="Type: fastsam:FastSAM-s.pt")
    model = FastSam.read(path) if path.is_dir() else unpickled(path)
    if plus:
        model.clip = _clip(second)
    return finish(
        model,
        FastSam,
        name=name or (f"{path.name}+{Path(second).name}" if plus else path.name),
        device=device,
        dtype=dtype or torch.float32,
        checkpointing=checkpointing,
    )


def _clip(spec: str) -> nn.Module:
    """transformers' CLIPModel with its tokenizer."""
    source = resolve(spec)
    if isinstance(source, Path) and source.is_file():
        raise InputError(f"'{spec}' is a file.", hint="Give CLIP's folder or hub id: openai/clip-vit-base-patch32")
    kind = read_config(source, spec).get("model_type")
    if kind != "clip":
        raise CheckpointError(f"'{spec}' is a model of type '{kind}'.", hint="Texts need CLIP.")
    return attach(read_network("CLIPModel", source, spec), read_tokenizer(source))
