"""What a `save_pretrained` folder or a hub repository holds: config, weights, tokenizer, processor's settings.

Every failure is one line that names the file: a library's own exceptions end here.
"""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from redsam.errors import CheckpointError, RedsamError
from redsam.models.lab import lab_names

# AutoTokenizer makes one that knows its special tokens only where the files are missing.
LEAST_VOCABULARY = 16


def read_config(source: Path | str, text: str) -> dict[str, Any]:
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
        raise CheckpointError(f"The config.json of '{text}' cannot be read: {first_line(error)}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"The config.json of '{text}' is not a JSON object.")
    return found


def read_own(folder: Path, make: Callable[[dict[str, Any]], nn.Module]) -> nn.Module:
    """A network of this package's own from config.json and model.safetensors, in float32. make: config to the network
    without its weights. Raises CheckpointError."""
    from safetensors.torch import load_file

    config = read_config(folder, str(folder))
    try:
        with torch.random.fork_rng(devices=[]):
            model = make(config)
        state = load_file(folder / "model.safetensors")
        model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    except Exception as error:  # config keys, safetensors and torch each have their own errors
        raise CheckpointError(f"'{folder.name}' cannot be loaded: {first_line(error)}") from error
    return model


def write_own(folder: Path | str, model: nn.Module, content: dict[str, Any], *, without: str | None = None) -> None:
    """What `read_own` reads: `content` as config.json, every weight as it is in model.safetensors. A weight under two
    names is stored under both, so that nothing has to be known to read them. without: a beginning of names left out."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    state = {k: v for k, v in model.state_dict().items() if without is None or not k.startswith(without)}
    kept = {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def read_network(class_name: str, source: Path | str, text: str) -> nn.Module:
    """A transformers model with every weight its architecture asks for. text: what the user typed."""
    import transformers

    kind = getattr(transformers, class_name)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), _quiet(transformers):
            warnings.simplefilter("ignore")
            model, info = kind.from_pretrained(
                str(source), dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
            )
    except RedsamError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"'{text}' cannot be loaded: {first_line(error)}") from error
    except Exception as error:  # safetensors' and huggingface_hub's own errors share no base class
        raise CheckpointError(f"'{text}' cannot be loaded: {type(error).__name__}: {first_line(error)}") from error
    for what, verb in (("missing_keys", "lacks"), ("mismatched_keys", "has another shape for")):
        keys = sorted(k if isinstance(k, str) else str(k[0]) for k in info.get(what, ()))
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise CheckpointError(f"'{text}' {verb} the weight '{keys[0]}'{more}.", hint="Save the model again.")
    if info.get("unexpected_keys"):
        keys = sorted(info["unexpected_keys"])
        warnings.warn(f"'{text}' holds {len(keys)} weights {class_name} has no use for, e.g. '{keys[0]}'", stacklevel=4)
    return cast(nn.Module, model)


def read_tokenizer(source: Path | str) -> Any:
    """The tokenizer beside a model, or None: a text is then refused when it is asked."""
    from transformers import AutoTokenizer

    try:
        found: Any = AutoTokenizer.from_pretrained(str(source))
        return found if len(found.get_vocab()) > LEAST_VOCABULARY else None
    except Exception:  # missing files, no network, an unknown class: each library layer has its own errors
        return None


def read_processor(source: Path | str) -> dict[str, Any]:
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


def first_line(error: BaseException) -> str:
    """First line of a library's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
