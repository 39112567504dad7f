"""SAM 3's click-and-box tracker (Carion et al., "SAM 3", 2025), image mode, over `transformers.Sam3TrackerModel`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from torch import nn

from redsam.models.sam2 import Sam2, feature_sizes, tiny_heads
from redsam.registry import register


@register("model", "sam3-tracker", paper="SAM 3: Segment Anything with Concepts, arXiv 2511.16719", year=2025)
class Sam3Tracker(Sam2):
    """SAM 3 prompted with points, boxes and masks: ViT encoder, SAM 2's decoder, stretched frame, mean and std 0.5."""

    family = "sam3-tracker"
    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)
    classes = ("Sam3TrackerModel",)
    model_types = ("sam3_tracker", "sam3_video")

    def blocks(self) -> Iterable[nn.Module]:
        """ViT blocks."""
        return cast(Iterable[nn.Module], self.net.vision_encoder.backbone.layers)

    @classmethod
    def tiny(cls, image_size: int) -> nn.Module:
        """Two ViT blocks of width 32, one windowed and one global, 8-pixel patches."""
        from transformers import Sam3TrackerConfig, Sam3TrackerModel

        heads = tiny_heads(image_size, patch_size=8)
        return Sam3TrackerModel(Sam3TrackerConfig(vision_config=tiny_vision(image_size), **heads))


def tiny_vision(image_size: int) -> Any:
    """Configuration of two ViT blocks of width 32, one windowed and one global, 8-pixel patches."""
    from transformers import Sam3VisionConfig, Sam3ViTConfig

    backbone = Sam3ViTConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=image_size,
        pretrain_image_size=image_size // 2,
        patch_size=8,
        window_size=4,
        global_attn_indexes=[1],
    )
    return Sam3VisionConfig(
        backbone_config=backbone,
        fpn_hidden_size=32,
        backbone_feature_sizes=feature_sizes(image_size, (2, 4, 8)),
    )
