"""Start a model from the weights of another: `train.py NAME --start DIR`.

From the same recipe everything is taken: training goes on from what was shipped. From another recipe only the prompt
encoder and the mask decoder are, wherever name and shape agree: the encoders stay independent, because a
transfer table between models that share an encoder would measure their kinship.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import nn

HEADS = ("prompt_encoder.", "mask_decoder.", "shared_image_embedding.")


def start_from(model: nn.Module, folder: Path) -> int:
    """Copy what fits from folder/model.safetensors into `model`; returns the number of tensors copied."""
    source = load_file(folder / "model.safetensors")
    own = model.state_dict()
    same = source.keys() == own.keys() and all(source[k].shape == own[k].shape for k in own)
    taken = {
        k: v.to(own[k].dtype)
        for k, v in source.items()
        if k in own and v.shape == own[k].shape and (same or k.startswith(HEADS))
    }
    model.load_state_dict(taken, strict=False)
    return len(taken)
