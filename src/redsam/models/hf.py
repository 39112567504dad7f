"""What the families over transformers share: precision, checkpointing, frame and prompt encoding.

Three traps live here so that no family has to know them. `get_image_embeddings` runs under no_grad, so the encoder is
called itself. `gradient_checkpointing_enable` does nothing in eval mode, so blocks checkpoint themselves. A point's
coordinates in half precision are off by pixels (bfloat16: up to 2 of 1024), so the position encoding stays in float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from redsam.errors import InputError
from redsam.models import attention
from redsam.models.base import Segmenter
from redsam.models.geometry import IMAGENET_MEAN, IMAGENET_STD, Frame, Kind, Rgb
from redsam.models.values import ModelPrompts


class TransformersSegmenter(Segmenter):
    """A SAM-like transformers model: vision encoder, prompt encoder, mask decoder, sizes from its own config."""

    kind: Kind = "pad"
    mean: Rgb = IMAGENET_MEAN
    std: Rgb = IMAGENET_STD
    # Classes of transformers that this family wraps, and the `model_type`s of config.json that load as the first.
    classes: tuple[str, ...] = ()
    model_types: tuple[str, ...] = ()

    def __init__(self, model: nn.Module, *, name: str, checkpointing: bool = False) -> None:
        super().__init__(model, name=name)
        self.net = cast(Any, model)  # transformers' models are untyped
        attention.use(model)
        if checkpointing:
            checkpoint_blocks(self.blocks())

    # --- hooks -----------------------------------------------------------------------------------------------------
    def blocks(self) -> Iterable[nn.Module]:
        """The encoder blocks that gradient checkpointing wraps."""
        raise InputError(f"Gradient checkpointing is not available for {self.family}.")

    def stages(self) -> Sequence[nn.Module]:
        """The blocks, in order."""
        return list(self.blocks())

    @classmethod
    def tiny(cls, image_size: int) -> nn.Module:
        """A small model of this family, started as transformers does; `redsam.models.tiny` starts it anew."""
        raise InputError(f"{cls.__name__} has no tiny model.")

    @classmethod
    def read(cls, folder: Path) -> nn.Module | None:
        """The network of a folder whose config.json names this family, or None: transformers reads it."""
        return None

    @classmethod
    def require(cls) -> None:
        """Raise MissingExtra when the family needs a package that is not installed."""

    # --- filled in for every family ---------------------------------------------------------------------------------
    @property
    def dtype(self) -> torch.dtype:
        """Of the decoder: the position encoding may stay in float32 beside it."""
        return cast(torch.dtype, self.net.mask_decoder.iou_token.weight.dtype)

    @property
    def mask_size(self) -> tuple[int, int]:
        """(h, w) of a mask prompt's logits."""
        height, width = self.net.prompt_encoder.image_embedding_size
        return 4 * height, 4 * width

    def frame(self, height: int, width: int) -> Frame:
        """Size from the model's config, normalisation from its processor's."""
        side = int(self.net.config.prompt_encoder_config.image_size)
        return Frame(kind=self.kind, height=height, width=width, side=side, mean=self.mean, std=self.std)

    def _prompt(self, count: int, prompts: ModelPrompts) -> tuple[Tensor, Tensor | None, Tensor]:
        """(position encoding Gx.., sparse Gx1xTxC or None, dense GxCxhxw), all in the model's precision."""
        place = self.net.get_image_wide_positional_embeddings().to(self.dtype).expand(count, -1, -1, -1)
        sparse, dense = self.net.prompt_encoder(
            input_points=prompts.points,
            input_labels=prompts.labels,
            input_boxes=prompts.boxes,
            input_masks=prompts.masks,
        )
        sparse = None if sparse is None else sparse.to(self.dtype)
        return place, sparse, dense.expand(count, -1, -1, -1).to(self.dtype)

    def _masks(self, features: Tensor, prompts: ModelPrompts, *, multimask: bool, **more: Any) -> tuple[Tensor, Tensor]:
        """The decoder's (GxMxhxw logits, GxM predicted IoU); `more` is what only this family's decoder takes."""
        place, sparse, dense = self._prompt(len(features), prompts)
        low_res, iou = self.net.mask_decoder(
            image_embeddings=features,
            image_positional_embeddings=place,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
            **more,
        )[:2]
        return low_res[:, 0], iou[:, 0]


def cast_model(model: nn.Module, *, device: str | torch.device, dtype: torch.dtype) -> nn.Module:
    """Move and cast; in half precision the position encodings stay in float32 (see above)."""
    own = getattr(model, "cast", None)
    if callable(own):  # several networks in one, which know how
        return cast(nn.Module, own(device=device, dtype=dtype))
    keep = dtype in (torch.float16, torch.bfloat16)
    exact = [
        (module, basis.data.to(device=device, dtype=torch.float32))
        for module in model.modules()
        if keep and isinstance(basis := getattr(module, "positional_embedding", None), Tensor)
    ]
    model = model.to(device=device, dtype=dtype)
    for module, basis in exact:
        module.positional_embedding.data = basis
    return model


def checkpoint_blocks(blocks: Iterable[nn.Module]) -> None:
    """Let each block recompute its activations in the backward pass, in eval mode too. Outputs do not change."""
    for block in blocks:
        if not issubclass(type(block), _Checkpointed):
            block.__class__ = _checkpointed(type(block))


class _Checkpointed(nn.Module):
    """Marks a block that checkpoints itself. A class, not a patched method: it survives deepcopy and state dicts."""


def _checkpointed(block: type[nn.Module]) -> type[nn.Module]:
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        plain = cast(Any, super(made, self)).forward
        if not torch.is_grad_enabled():
            return plain(*args, **kwargs)
        return checkpoint(plain, *args, use_reentrant=False, **kwargs)

    # The block's own class comes first in the MRO so that transformers' isinstance checks and hooks go on working.
    made: type[nn.Module] = type(f"Checkpointed{block.__name__}", (block, _Checkpointed), {"forward": forward})
    return made
