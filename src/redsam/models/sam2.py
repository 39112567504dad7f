"""SAM 2 (Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024) over `transformers.Sam2Model`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from redsam.models.hf import TransformersSegmenter
from redsam.models.values import ModelPrompts
from redsam.registry import register


@register("model", "sam2", paper="SAM 2, arXiv 2408.00714", year=2024)
class Sam2(TransformersSegmenter):
    """SAM 2 on single images: Hiera encoder, stretched frame, two high-resolution levels for the decoder.

    The single mask (select="single") keeps the official dynamic choice: token 0 when its mask is stable, else the best
    of the three by predicted IoU.
    """

    family = "sam2"
    kind = "stretch"
    classes = ("Sam2Model",)
    model_types = ("sam2", "sam2_video")

    def blocks(self) -> Iterable[nn.Module]:
        """Hiera blocks."""
        return cast(Iterable[nn.Module], self.net.vision_encoder.backbone.blocks)

    def _embed(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        maps = list(self.net.get_image_features(pixels, return_dict=True).fpn_hidden_states)
        # Image mode: no memory of earlier frames, which the model marks on the coarsest map.
        maps[-1] = maps[-1] + self.net.no_memory_embedding
        # As the official forward, which pairs maps with sizes: SAM 3's neck makes a fourth, coarser map that has no
        # size and is dropped here (so there the mark above goes unseen, as in transformers' Sam3TrackerModel).
        sizes = self.net.backbone_feature_sizes
        high, middle, low = (
            m.permute(1, 2, 0).reshape(len(pixels), -1, *size) for m, size in zip(maps, sizes, strict=False)
        )
        return low, (high, middle)

    def _decode_group(
        self, features: Tensor, extra: tuple[Tensor, ...], prompts: ModelPrompts, *, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        if prompts.points is None and prompts.boxes is None:  # a mask alone: the official forward adds a point of none
            nowhere = torch.zeros(len(features), 1, 1, 2, device=features.device)
            label = -torch.ones(len(features), 1, 1, dtype=torch.int64, device=features.device)
            prompts = replace(prompts, points=nowhere, labels=label)
        return self._masks(features, prompts, multimask=multimask, high_resolution_features=list(extra))

    @classmethod
    def tiny(cls, image_size: int) -> nn.Module:
        """Five Hiera blocks of width 16 to 128, one global (never a stage's first, which transformers cannot)."""
        from transformers import Sam2Config, Sam2HieraDetConfig, Sam2Model, Sam2VisionConfig

        backbone = Sam2HieraDetConfig(
            hidden_size=16,
            image_size=[image_size, image_size],
            blocks_per_stage=[1, 1, 2, 1],
            embed_dim_per_stage=[16, 32, 64, 128],
            num_attention_heads_per_stage=[1, 2, 4, 8],
            window_size_per_stage=[8, 4, 4, 2],
            global_attention_blocks=[3],
        )
        vision = Sam2VisionConfig(
            backbone_config=backbone,
            backbone_channel_list=[128, 64, 32, 16],
            backbone_feature_sizes=feature_sizes(image_size, (4, 8, 16)),
            fpn_hidden_size=32,
        )
        return Sam2Model(Sam2Config(vision_config=vision, **tiny_heads(image_size, patch_size=16)))


def feature_sizes(image_size: int, strides: tuple[int, ...]) -> list[list[int]]:
    """Sizes of the three feature maps, finest first."""
    return [[image_size // s, image_size // s] for s in strides]


def tiny_heads(image_size: int, *, patch_size: int) -> dict[str, Any]:
    """Prompt encoder and mask decoder of a tiny SAM 2, SAM 3 or EdgeTAM."""
    return {
        "prompt_encoder_config": {
            "hidden_size": 32,
            "image_size": image_size,
            "patch_size": patch_size,
            "mask_input_channels": 16,
        },
        "mask_decoder_config": {
            "hidden_size": 32,
            "mlp_dim": 64,
            "num_attention_heads": 8,
            "iou_head_hidden_dim": 32,
        },
    }
