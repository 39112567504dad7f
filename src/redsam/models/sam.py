"""SAM (Kirillov et al., "Segment Anything", 2023) over `transformers.SamModel`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from torch import Tensor, nn

from redsam.models.hf import TransformersSegmenter
from redsam.models.values import ModelPrompts
from redsam.registry import register


@register("model", "sam", paper="Segment Anything, arXiv 2304.02643", year=2023)
class Sam(TransformersSegmenter):
    """Segment Anything: ViT encoder, 1024-pixel padded frame, three masks and one single-mask token."""

    family = "sam"
    kind = "pad"
    classes = ("SamModel",)
    model_types = ("sam",)

    def blocks(self) -> Iterable[nn.Module]:
        """ViT blocks."""
        return cast(Iterable[nn.Module], self.net.vision_encoder.layers)

    def _embed(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.net.vision_encoder(pixels).last_hidden_state, ()

    def _decode_group(
        self, features: Tensor, extra: tuple[Tensor, ...], prompts: ModelPrompts, *, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        return self._masks(features, prompts, multimask=multimask)

    @classmethod
    def tiny(cls, image_size: int) -> nn.Module:
        """Two blocks of width 32, one windowed and one global, 8-pixel patches."""
        from transformers import SamConfig, SamModel

        return SamModel(SamConfig(**tiny_vit_config(image_size)))


def tiny_vit_config(image_size: int) -> dict[str, Any]:
    """Config of a tiny SAM or SAM-HQ. initializer_range: transformers' default of 1e-10 starts a model with gradients
    of 1e-20. Eight decoder heads as every published SAM, which the official weight files do not record."""
    return {
        "vision_config": {
            "hidden_size": 32,
            "output_channels": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": image_size,
            "patch_size": 8,
            "window_size": 3,
            "global_attn_indexes": [1],
            "num_pos_feats": 16,
            "initializer_range": 0.02,
        },
        "prompt_encoder_config": {
            "hidden_size": 32,
            "image_size": image_size,
            "patch_size": 8,
            "mask_input_channels": 16,
        },
        "mask_decoder_config": {
            "hidden_size": 32,
            "mlp_dim": 64,
            "num_attention_heads": 8,
            "iou_head_hidden_dim": 32,
        },
    }
