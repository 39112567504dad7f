"""EdgeTAM (Zhou et al., "EdgeTAM: On-Device Track Anything Model", 2025), image mode, over `transformers.EdgeTamModel`.

Its RepViT encoder comes from timm, an optional dependency.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence

from torch import nn

from redsam.errors import InputError, MissingExtra
from redsam.models.base import Segmenter
from redsam.models.sam2 import Sam2, feature_sizes, tiny_heads
from redsam.registry import register


@register("model", "edgetam", paper="EdgeTAM, arXiv 2501.07256", year=2025, extra="edgetam")
class EdgeTam(Sam2):
    """SAM 2 with a RepViT encoder for phones. Needs the extra `edgetam` (timm)."""

    family = "edgetam"
    classes = ("EdgeTamModel",)
    model_types = ("edgetam", "edgetam_video")

    @classmethod
    def require(cls) -> None:
        """Raise MissingExtra unless timm is installed."""
        if importlib.util.find_spec("timm") is None:
            raise MissingExtra("timm", "edgetam", needed_for="The model family edgetam")

    def blocks(self) -> Iterable[nn.Module]:
        """None: the convolutional encoder is small and timm's stages are fused on export."""
        raise InputError("Gradient checkpointing is not available for edgetam.", hint="Load it without.")

    def stages(self) -> Sequence[nn.Module]:
        """RepViT's four stages are one fused module of timm: no blocks to look into."""
        return Segmenter.stages(self)

    @classmethod
    def tiny(cls, image_size: int) -> nn.Module:
        """The smallest RepViT of timm with the tiny SAM 2 heads."""
        cls.require()
        from transformers import EdgeTamConfig, EdgeTamModel, EdgeTamVisionConfig, TimmWrapperConfig

        backbone = TimmWrapperConfig(
            architecture="repvit_m1",
            model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
        )
        vision = EdgeTamVisionConfig(
            backbone_config=backbone,
            backbone_channel_list=[384, 192, 96, 48],
            backbone_feature_sizes=feature_sizes(image_size, (4, 8, 16)),
            fpn_hidden_size=32,
        )
        return EdgeTamModel(EdgeTamConfig(vision_config=vision, **tiny_heads(image_size, patch_size=16)))
