"""`load`: one call from whatever a person has (lab name, hub id, folder, Meta's .pth, a module) to a Segmenter."""

from __future__ import annotations

import difflib
import json
import pickle
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from redsam.errors import CheckpointError, InputError, RedsamError, UnknownName
from redsam.models.base import Segmenter
from redsam.models.geometry import Rgb
from redsam.models.hf import TransformersSegmenter, cast_model
from redsam.models.lab import lab_folder, lab_names
from redsam.models.official import read_official
from redsam.registry import entries

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
    name: str | None = None,
) -> Segmenter:
    """A Segmenter from a lab name, a hub id, a `save_pretrained` folder, a Meta .pth of SAM, or a module in memory.

    A module in memory is used as it is, set to eval and frozen. dtype: float32 unless given, a module's own for a
    module. checkpointing: recompute the encoder's activations in the backward pass (less memory, more time, same
    numbers). name: what reports call it, by default the hub id or the
    last part of the path: where a model lies is no part of what it is.
    Raises UnknownName (nothing of that name), InputError (no such path), CheckpointError (not weights, not the weights
    the architecture asks for, or not finite), MissingExtra (family needs another package).
    """
    if isinstance(spec, nn.Module):
        return _finish(
            spec,
            _family_of(type(spec).__name__),
            name=name or type(spec).__name__,
            device=device,
            # The last parameter is the decoder's; the first may be a position encoding kept in float32.
            dtype=dtype or list(spec.parameters())[-1].dtype,
            checkpointing=checkpointing,
        )
    text = str(spec)
    source = _resolve(spec)
    if isinstance(source, Path) and source.is_file():
        family, model, processor = _family_of("SamModel"), read_official(source), None
    else:
        family, model, processor = _pretrained(source, text)
    wanted = dtype or torch.float32
    called = name or (source.resolve().name if isinstance(source, Path) else text)
    return _finish(
        model, family, name=called, device=device, dtype=wanted, checkpointing=checkpointing, processor=processor
    )


def _resolve(spec: str | Path) -> Path | str:
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
    config = _config(source, text)
    family = next((f for f in _families() if config.get("model_type") in f.model_types), None)
    if family is None:
        known = ", ".join(t for f in _families() for t in f.model_types)
        raise CheckpointError(
            f"'{text}' is a model of type '{config.get('model_type')}', which is not promptable here.",
            hint=f"Known types: {known}. Wrap another model with redsam.models.wrap.",
        )
    family.require()
    import transformers

    kind = getattr(transformers, family.classes[0])
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), _quiet(transformers):
            warnings.simplefilter("ignore")
            model, info = kind.from_pretrained(
                str(source), dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
            )
    except RedsamError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"'{text}' cannot be loaded: {_line(error)}") from error
    except Exception as error:  # safetensors' and huggingface_hub's own errors share no base class
        raise CheckpointError(f"'{text}' cannot be loaded: {type(error).__name__}: {_line(error)}") from error
    for what, verb in (("missing_keys", "lacks"), ("mismatched_keys", "has another shape for")):
        keys = sorted(k if isinstance(k, str) else str(k[0]) for k in info.get(what, ()))
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise CheckpointError(f"'{text}' {verb} the weight '{keys[0]}'{more}.", hint="Save the model again.")
    if info.get("unexpected_keys"):
        keys = sorted(info["unexpected_keys"])
        warnings.warn(
            f"'{text}' holds {len(keys)} weights {family.classes[0]} has no use for, e.g. '{keys[0]}'", stacklevel=3
        )
    return family, cast(nn.Module, model), _processor(source)


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Keep transformers' progress bars and load reports off the terminal; what they say becomes an error here."""
    log = transformers.utils.logging
    bars, level = log.is_progress_bar_enabled(), log.get_verbosity()
    log.disable_progress_bar()
    log.set_verbosity_error()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def _config(source: Path | str, text: str) -> dict[str, Any]:
    """config.json of a folder or a hub repository."""
    if isinstance(source, Path):
        path = source / "config.json"
        if not path.is_file():
            raise CheckpointError(f"'{text}' has no config.json.", hint="Give a folder written by save_pretrained.")
    else:
        path = Path(_download(source, "config.json"))
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"The config.json of '{text}' cannot be read: {_line(error)}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"The config.json of '{text}' is not a JSON object.")
    return found


def _download(repository: str, filename: str) -> str:
    """One file of a hub repository, from the local cache or the hub; every failure is one line."""
    from huggingface_hub import hf_hub_download

    try:
        return hf_hub_download(repository, filename)
    except Exception as error:  # network, proxy, missing repository, gate: each library layer has its own classes
        raise CheckpointError(
            f"'{repository}' is not in the local cache and the model hub gave no answer ({type(error).__name__}).",
            hint="Check the name and the network, or give a downloaded folder; bundled: "
            + (", ".join(lab_names()) or "none")
            + ".",
        ) from error


def _processor(source: Path | str) -> dict[str, Any]:
    """preprocessor_config.json of a folder (mean and std may differ from the family's), or nothing."""
    if isinstance(source, Path):
        path = source / "preprocessor_config.json"
    else:
        try:
            path = Path(_download(source, "preprocessor_config.json"))
        except CheckpointError:
            return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _finish(
    model: nn.Module,
    family: type[TransformersSegmenter],
    *,
    name: str,
    device: str | torch.device,
    dtype: torch.dtype,
    checkpointing: bool,
    processor: dict[str, Any] | None = None,
) -> Segmenter:
    """Check that every weight is finite, cast, move, wrap."""
    for key, value in model.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"The weight '{key}' of '{name}' is not finite (NaN or infinity).")
    segmenter = family(cast_model(model, device=device, dtype=dtype), name=name, checkpointing=checkpointing)
    for key, attribute in (("image_mean", "mean"), ("image_std", "std")):
        value = (processor or {}).get(key)
        if isinstance(value, list) and len(value) == 3:
            setattr(segmenter, attribute, cast(Rgb, tuple(float(v) for v in value)))
    return segmenter


def _families() -> list[type[TransformersSegmenter]]:
    return [e.obj for e in entries("model") if issubclass(e.obj, TransformersSegmenter)]


def _family_of(class_name: str) -> type[TransformersSegmenter]:
    """The family that wraps a transformers class."""
    for family in _families():
        if class_name in family.classes:
            return family
    known = ", ".join(c for f in _families() for c in f.classes)
    raise InputError(
        f"A module of type {class_name} is none of the known families ({known}).",
        hint="Wrap it: redsam.models.wrap(module, image_size=..., embed=..., decode=...).",
    )


def _line(error: BaseException) -> str:
    """First line of a library's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
