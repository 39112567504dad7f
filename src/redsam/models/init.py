"""Starting weights that train and attack well, for models made from a config.

transformers starts SAM's encoder with std 1e-10, its decoder with 0.02 and the random position encoding with scale
hidden_size / 2; Meta's models start from PyTorch's own layer defaults and a position encoding of scale 1. With the
former a fresh model does not learn where its prompts are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# ViT position tables: as in Meta's image encoder (trunc_normal_ with std 0.02).
TABLE_STD = 0.02


def initialise(model: nn.Module, *, seed: int) -> nn.Module:
    """Reset every parameter in place: PyTorch's `reset_parameters` where a layer has it, unit Gaussians for the
    position encoding (tied copies stay tied), 0.02 for position tables. The global generator is left as it was."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for module in model.modules():
            if callable(getattr(module, "reset_parameters", None)):
                module.reset_parameters()  # type: ignore[operator]
        covered = {
            id(p) for m in model.modules() if hasattr(m, "reset_parameters") for p in m.parameters(recurse=False)
        }
        for name, parameter in model.named_parameters():
            if id(parameter) not in covered:
                scale = 1.0 if name.endswith("positional_embedding") else TABLE_STD
                parameter.normal_(std=scale)
        _share_position_encoding(model)
    return model


def _share_position_encoding(model: nn.Module) -> None:
    """Image grid and prompts use one random Fourier basis. In SAM it is one tied parameter, in SAM 2 two buffers."""
    first: Tensor | None = None
    for module in model.modules():
        basis = getattr(module, "positional_embedding", None)
        if not isinstance(basis, Tensor):
            continue
        if first is None:
            first = basis
            if not isinstance(basis, nn.Parameter):
                basis.normal_(std=1.0)
        elif basis is not first:
            basis.copy_(first)
