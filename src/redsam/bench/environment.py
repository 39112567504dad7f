"""What a cell ran on: versions, code state, device, torch switches that may change a number. No paths, no host."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from redsam import __version__

PACKAGES = ("torch", "transformers", "numpy", "scipy", "pillow", "safetensors", "pycocotools", "timm")


def environment(device: torch.device) -> dict[str, Any]:
    """JSON-ready description of this process, for env.json and summary.json."""
    return {
        "redsam": __version__,
        "code": _code_state(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: v for name in PACKAGES if (v := _version(name))},
        "device": _device(device),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "tf32": bool(torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    return device.type


def _code_state() -> dict[str, Any] | None:
    """Commit of the checkout the code runs from and whether it was changed; None for an installed package."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None

    def git(*args: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *args], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "-uno", "--", "src"))}
    except (OSError, subprocess.SubprocessError):
        return None
