"""`load`: one call from whatever a person has (lab name, hub id, folder, Meta's .pth, a module) to a Segmenter."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from redsam.errors import CheckpointError, InputError, UnknownName
from redsam.models.attention import Attention, use
from redsam.models.base import Segmenter
from redsam.models.checkpoints import read_config, read_network, read_processor, read_tokenizer
from redsam.models.geometry import Rgb
from redsam.models.hf import TransformersSegmenter, cast_model
from redsam.models.lab import lab_folder, lab_names
from redsam.models.official import read_official
from redsam.models.text import attach
from redsam.models.trust import trusting
from redsam.registry import entries, get

# For suggestions only: any hub id of a known architecture loads.
KNOWN_HUB = (
    "facebook/sam-vit-base",
    "facebook/sam-vit-large",
    "facebook/sam-vit-huge",
    "facebook/sam2.1-hiera-tiny",
    "facebook/sam2.1-hiera-small",
    "facebook/sam2.1-hiera-base-plus",
    "facebook/sam2.1-hiera-large",
    "facebook/sam3",
    "yonigozlan/EdgeTAM-hf",
)
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
WEIGHT_FILES = (".pth", ".pt", ".bin", ".ckpt")


def load(
    spec: str | Path | nn.Module,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    checkpointing: bool = False,
    attention: Attention | None = None,
    name: str | None = None,
    trust: bool | None = None,
) -> Segmenter:
    """A Segmenter from a lab name, a hub id, a `save_pretrained` folder, a published weight file (SAM, SAM-HQ,
    MobileSAM, SAM 2), or a module in memory.

    Two prefixes ask for texts: `grounded:DETECTOR+SEGMENTER`, each a hub id, folder or lab name (Grounding DINO or
    OWLv2; `grounded-frozen:` keeps the boxes of the clean image, see grounded.py), and `text:NAME` for SAM 3. Prefixes
    declare themselves as `@register("opener", PREFIX)`; another is `fastsam:PATH`.

    A module in memory is used as it is, set to eval and frozen. dtype: float32 unless given, a module's own for a
    module. checkpointing: recompute the encoder's activations in the backward pass (less memory, more time, same
    numbers). attention: how SAM's encoder computes its attention (attention.py); None and "auto" take what is fastest,
    "official" is transformers' own code. name: what reports call it, by default the hub id or the
    last part of the path: where a model lies is no part of what it is. trust: open checkpoints that are pickles, which
    runs their code (trust.py); None leaves it as it was said around this call, and unsaid is no.
    Raises UnknownName (nothing of that name), InputError (no such path), CheckpointError (not weights, not the weights
    the architecture asks for, or not finite), MissingExtra (family needs another package).
    """
    if trust is not None:
        with trusting(trust):
            return load(
                spec, device=device, dtype=dtype, checkpointing=checkpointing, attention=attention, name=name
            )  # fmt: skip
    if isinstance(spec, nn.Module):
        return finish(
            spec,
            _family_of(spec),
            name=name or type(spec).__name__,
            device=device,
            # The last parameter is the decoder's; the first may be a position encoding kept in float32.
            dtype=dtype or list(spec.parameters())[-1].dtype,
            checkpointing=checkpointing,
            attention=attention,
        )
    text = str(spec)
    prefix, colon, rest = text.partition(":")
    opener = next((e.obj for e in entries("opener") if isinstance(spec, str) and colon and e.name == prefix), None)
    if opener is not None:
        found = opener(rest, device=device, dtype=dtype, checkpointing=checkpointing, name=name)
        use(found.model, attention)
        return cast(Segmenter, found)
    source = resolve(spec)
    family: type[TransformersSegmenter]
    if isinstance(source, Path) and source.is_file():
        found_in, model = read_official(source)
        family, processor = cast(type[TransformersSegmenter], get("model", found_in).obj), None
    else:
        family, model, processor = _pretrained(source, text)
    wanted = dtype or torch.float32
    called = name or (source.resolve().name if isinstance(source, Path) else text)
    return finish(
        model, family, name=called, device=device, dtype=wanted, checkpointing=checkpointing, attention=attention,
        processor=processor,
    )  # fmt: skip


def resolve(spec: str | Path) -> Path | str:
    """A file, a folder, or a hub id."""
    text = str(spec)
    bundled = lab_folder(text)
    if bundled is not None:
        return bundled
    path = Path(spec).expanduser()
    try:
        if path.exists():
            return path
    except OSError as error:  # a name too long for the file system
        raise InputError(f"'{text[:60]}' is not a model name or path: {error.strerror}.") from error
    if isinstance(spec, Path) or path.suffix in WEIGHT_FILES or text.startswith((".", "/", "~")):
        raise InputError(f"There is no file or folder '{text}'.")
    if HUB_ID.fullmatch(text):
        return text
    raise _unknown(text)


def _unknown(text: str) -> UnknownName:
    """Suggest lab names and hub ids; `sam-vit-bas` should find `facebook/sam-vit-base`."""
    full = {**{n.split("/")[-1].lower(): n for n in KNOWN_HUB}, **{n: n for n in (*lab_names(), *KNOWN_HUB)}}
    near = list(dict.fromkeys(full[m] for m in difflib.get_close_matches(text.lower(), full, n=4, cutoff=0.5)))[:3]
    if near:
        hint = f"Did you mean {' or '.join(repr(n) for n in near)}?"
    else:
        bundled = ", ".join(lab_names()) or "none bundled"
        hint = f"Type a lab model ({bundled}), a hub id such as {KNOWN_HUB[0]}, a folder or a .pth file."
    return UnknownName(f"There is no model named '{text}'.", hint=hint)


def _pretrained(source: Path | str, text: str) -> tuple[type[TransformersSegmenter], nn.Module, dict[str, Any] | None]:
    """Read a `save_pretrained` folder or a hub repository. Returns family, model and the processor's settings."""
    config = read_config(source, text)
    family = next((f for f in _families() if config.get("model_type") in f.model_types), None)
    if family is None:
        known = ", ".join(t for f in _families() for t in f.model_types)
        raise CheckpointError(
            f"'{text}' is a model of type '{config.get('model_type')}', which is not promptable here.",
            hint=f"Known types: {known}. Wrap another model with redsam.models.wrap.",
        )
    family.require()
    own = family.read(source) if isinstance(source, Path) else None
    if own is not None:
        return family, own, None
    model = read_network(family.classes[0], source, text)
    if family.takes_text:
        attach(model, read_tokenizer(source))
    return family, model, read_processor(source)


def finish(
    model: nn.Module,
    family: type[TransformersSegmenter],
    *,
    name: str,
    device: str | torch.device,
    dtype: torch.dtype,
    checkpointing: bool,
    attention: Attention | None = None,
    processor: dict[str, Any] | None = None,
) -> Segmenter:
    """Check that every weight is finite, cast, move, wrap."""
    for key, value in model.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"The weight '{key}' of '{name}' is not finite (NaN or infinity).")
    segmenter = family(cast_model(model, device=device, dtype=dtype), name=name, checkpointing=checkpointing)
    use(segmenter.model, attention)
    for key, attribute in (("image_mean", "mean"), ("image_std", "std")):
        value = (processor or {}).get(key)
        if isinstance(value, list) and len(value) == 3:
            setattr(segmenter, attribute, cast(Rgb, tuple(float(v) for v in value)))
    return segmenter


def _families() -> list[type[TransformersSegmenter]]:
    return [e.obj for e in entries("model") if issubclass(e.obj, TransformersSegmenter)]


def _family_of(module: nn.Module) -> type[TransformersSegmenter]:
    """The family that wraps a module in memory: the one it names itself, or that of its class."""
    named, class_name = getattr(module, "family", None), type(module).__name__
    for family in _families():
        if class_name in family.classes and named in (None, family.family):
            return family
    known = ", ".join(c for f in _families() for c in f.classes)
    raise InputError(
        f"A module of type {class_name} is none of the known families ({known}).",
        hint="Wrap it: redsam.models.wrap(module, image_size=..., embed=..., decode=...).",
    )
