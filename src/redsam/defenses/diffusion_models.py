"""Unconditional diffusion models of diffusers, read by name: bundled, a folder, or a hub id. Safetensors only.

A folder holds a UNet2DModel and its scheduler: that of a DDPMPipeline (unet/, scheduler/) or both side by side.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from redsam.defenses.diffusion import Schedule
from redsam.errors import CheckpointError, InputError, MissingExtra
from redsam.models.checkpoints import first_line
from redsam.models.lab import WEIGHTS

BUNDLED = "lab-ddpm"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
PREDICTIONS = ("epsilon", "sample", "v_prediction")
# What of a scheduler's config decides the noise; how it samples is the purifier's business.
DECIDES = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas",
           "rescale_betas_zero_snr")  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Denoiser:
    """network: frozen, float32, on the CPU. predicts: what its output is. side: of the pictures it was trained on;
    fingerprint: of its weights."""

    network: nn.Module
    schedule: Schedule
    predicts: str
    side: int
    stride: int
    fingerprint: str

    def noise(self, network: nn.Module, x: Tensor, t: int) -> Tensor:
        """The noise in x_t Bx3xSxS; network: `self.network`, moved and cast."""
        x = x.contiguous(memory_format=torch.channels_last)  # a fifth faster on a CPU
        out: Tensor = network(x, t, return_dict=False)[0][:, :3]  # a learned variance is not used
        kept, lost = math.sqrt(self.schedule.at(t)), math.sqrt(1 - self.schedule.at(t))
        if self.predicts == "sample":
            return (x - kept * out) / lost
        if self.predicts == "v_prediction":  # Salimans & Ho 2022: v = sqrt(abar) eps - sqrt(1 - abar) x
            return kept * out + lost * x
        return out


def denoiser(model: str) -> Denoiser:
    """The model of that name, read once in a process. Raises MissingExtra without diffusers, InputError for a model
    that makes no RGB pictures or wants to be told what to make, CheckpointError for one that cannot be read."""
    return _read(_located(model), model)


def check(model: str) -> None:
    """What can be said without reading weights: InputError for no such model, or one that makes other pictures. A hub
    id is looked at when it is read."""
    source = _located(model)
    if isinstance(source, Path):
        _checked(_config(source, model, "unet", "config.json")[0], model)


@lru_cache(maxsize=4)
def placed(model: str, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The network of `denoiser(model)` there and in that precision."""
    found = denoiser(model)
    if device.type == "cpu" and dtype == torch.float32:
        return found.network
    with torch.random.fork_rng(devices=[]):
        twin = type(found.network).from_config(found.network.config)  # type: ignore[attr-defined]
    twin.load_state_dict(found.network.state_dict())
    # torch's own: that of diffusers warns of every cast.
    moved: nn.Module = nn.Module.to(twin, device=device, dtype=dtype)
    return _still(moved)


def _located(model: str) -> Path | str:
    """The folder, or the hub id."""
    if model == BUNDLED and (WEIGHTS / BUNDLED).is_dir():
        return WEIGHTS / BUNDLED
    hint = f"Give {BUNDLED}, a folder of a diffusers DDPMPipeline, or a hub id."
    if not isinstance(model, str) or not model:
        raise InputError(f"{model!r} is no diffusion model.", hint=hint)
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.exists() or not HUB_ID.fullmatch(model):
        raise InputError(f"There is no diffusion model '{model}'.", hint=hint)
    return model


@lru_cache(maxsize=4)
def _read(source: Path | str, model: str) -> Denoiser:
    try:
        diffusers: Any = importlib.import_module("diffusers")  # its functions have no types
    except ImportError as error:
        raise MissingExtra("diffusers", "diffusion", needed_for=f"Purifying with '{model}'") from error
    config, part = _config(source, model, "unet", "config.json")
    side = _checked(config, model)
    told, _ = _config(source, model, "scheduler", "scheduler_config.json")
    if (predicts := str(told.get("prediction_type", "epsilon"))) not in PREDICTIONS:
        raise InputError(f"'{model}' predicts '{predicts}'.", hint=f"Known: {', '.join(PREDICTIONS)}.")
    logging = diffusers.utils.logging
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        abar = diffusers.DDPMScheduler(**{k: told[k] for k in DECIDES if k in told}).alphas_cumprod.double().tolist()
        with torch.random.fork_rng(devices=[]):
            network, info = diffusers.UNet2DModel.from_pretrained(
                str(source), subfolder=part or None, use_safetensors=True, torch_dtype=torch.float32,
                low_cpu_mem_usage=False, output_loading_info=True,
            )  # fmt: skip
    except Exception as error:  # diffusers, safetensors, huggingface_hub and torch each have their own errors
        raise CheckpointError(
            f"The diffusion model '{model}' cannot be loaded: {first_line(error)}",
            hint="It takes weights as safetensors and a scheduler with betas.",
        ) from error
    finally:
        logging.set_verbosity(verbosity)
    if missing := sorted(info.get("missing_keys", ())) + sorted(map(str, info.get("mismatched_keys", ()))):
        raise CheckpointError(f"The diffusion model '{model}' lacks the weight '{missing[0]}'.")
    if not all(bool(v.isfinite().all()) for v in network.state_dict().values()):
        raise CheckpointError(f"The diffusion model '{model}' has weights that are not finite.")
    return Denoiser(
        network=_still(network), schedule=Schedule(tuple(abar)), predicts=predicts, side=side,
        stride=2 ** (len(config["block_out_channels"]) - 1), fingerprint=_fingerprint(network),
    )  # fmt: skip


def _checked(config: Mapping[str, Any], model: str) -> int:
    """The side of its pictures. Raises InputError unless it makes RGB pictures of its own accord."""
    kind = config.get("_class_name", "UNet2DModel")
    if kind != "UNet2DModel":
        raise InputError(f"'{model}' is a {kind}.", hint="Give an unconditional pixel model: a UNet2DModel.")
    taken, made = config.get("in_channels", 3), config.get("out_channels", 3)
    if taken != 3 or made not in (3, 6):
        raise InputError(
            f"The diffusion model '{model}' takes {taken} channels and makes {made}.",
            hint="Photographs have 3: give a model of RGB pictures (6 out with a learned variance).",
        )
    if config.get("num_class_embeds") or config.get("class_embed_type"):
        raise InputError(f"The diffusion model '{model}' wants a class.", hint="Give an unconditional one.")
    side = config.get("sample_size")
    return int(max(side) if isinstance(side, list | tuple) else side or 64)


def _config(source: Path | str, model: str, folder: str, name: str) -> tuple[dict[str, Any], str]:
    """A JSON document in `folder` of the source or beside everything else; and the part of the source it lies in."""
    fetch: Callable[[str], Path | None] = (lambda at: source / at) if isinstance(source, Path) else _hub(source)
    for part in (folder, ""):
        path = fetch(f"{part}/{name}".lstrip("/"))
        if path is None or not path.is_file():
            continue
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"The {name} of '{model}' cannot be read: {first_line(error)}") from error
        if isinstance(found, dict):
            return found, part
    raise CheckpointError(
        f"The diffusion model '{model}' has no {name}, or the model hub gave no answer.",
        hint="Give a folder written by DDPMPipeline.save_pretrained.",
    )


def _hub(repository: str) -> Callable[[str], Path | None]:
    def fetch(name: str) -> Path | None:
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(repository, name))
        except Exception:  # no network, no such file, a gate: each layer has its own classes; said by the caller
            return None

    return fetch


def _still(network: nn.Module) -> nn.Module:
    """Not trained, and laid out as `Denoiser.noise` brings pictures."""
    frozen: nn.Module = nn.Module.to(network, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return frozen.eval().requires_grad_(False)


def _fingerprint(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
