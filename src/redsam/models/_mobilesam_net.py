"""MobileSAM's network: timm's TinyViT in front of transformers' SAM neck, prompt encoder and mask decoder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn
from transformers import SamConfig, SamModel, SamVisionConfig
from transformers.models.sam.modeling_sam import SamVisionEncoderOutput, SamVisionNeck

from redsam.models.checkpoints import write_own

# TinyViT-5M, as published: mobile_sam/build_sam.py (2023).
WIDTHS = (64, 128, 160, 320)
DEPTHS = (2, 2, 6, 2)
HEADS = (2, 4, 5, 10)
WINDOWS = (7, 7, 14, 7)
STRIDE = 16  # pixels a step of the embedding stands for


class TinyVitEncoder(nn.Module):
    """timm's `tiny_vit` without its classifier, then SAM's neck. MobileSAM keeps the third stage's resolution in the
    fourth: the embedding has a sixteenth of the image's side, where a classifier's has a thirty-second."""

    def __init__(self, *, widths: Sequence[int], depths: Sequence[int], heads: Sequence[int], channels: int) -> None:
        super().__init__()
        from timm.models.tiny_vit import TinyVit

        trunk = TinyVit(
            num_classes=0,
            embed_dims=tuple(widths),
            depths=tuple(depths),
            num_heads=tuple(heads),
            window_sizes=WINDOWS,
            drop_path_rate=0.0,
        )
        self.patch_embed, self.stages = trunk.patch_embed, trunk.stages
        cast(Any, self.stages[-1]).downsample.conv2.conv.stride = (1, 1)
        self.neck = SamVisionNeck(SamVisionConfig(hidden_size=widths[-1], output_channels=channels))

    def forward(self, pixel_values: Tensor, **_: Any) -> SamVisionEncoderOutput:
        """Bx3xSxS to a `last_hidden_state` of BxCxhxw."""
        for module in self.stages.modules():
            # timm keeps gathered position biases of an earlier pass, which would outlive a change of the weights.
            if hasattr(module, "attention_bias_cache"):
                module.attention_bias_cache = {}
        maps = self.stages(self.patch_embed(pixel_values))
        return SamVisionEncoderOutput(last_hidden_state=self.neck(maps.permute(0, 2, 3, 1)))


class MobileSamModel(SamModel):  # type: ignore[no-untyped-call]
    """A `SamModel` with a TinyViT in place of its ViT. encoder: `widths`, `depths`, `heads` of TinyVitEncoder; sam:
    `prompt_encoder_config` and `mask_decoder_config` as SamConfig takes them, and image_size."""

    def __init__(self, *, encoder: dict[str, Any], sam: dict[str, Any]) -> None:
        self.made_of = {"encoder": encoder, "sam": sam}
        prompt, decoder = sam["prompt_encoder_config"], sam["mask_decoder_config"]
        # The encoder that SamModel makes of this is replaced below; the position encoding's width stays.
        vision = {
            "num_hidden_layers": 0,
            "hidden_size": 8,
            "num_attention_heads": 1,
            "global_attn_indexes": [],
            "output_channels": prompt["hidden_size"],
            "image_size": prompt["image_size"],
            "patch_size": STRIDE,
            "num_pos_feats": prompt["hidden_size"] // 2,
        }
        config = SamConfig(
            vision_config=vision,
            prompt_encoder_config={**prompt, "patch_size": STRIDE},
            mask_decoder_config=decoder,
        )
        super().__init__(config)
        self.vision_encoder = cast(Any, TinyVitEncoder(**encoder, channels=prompt["hidden_size"]))

    def save_pretrained(self, save_directory: str | os.PathLike[Any], *_: Any, **__: Any) -> None:
        """config.json and model.safetensors, as `MobileSam.read` takes them."""
        write_own(os.fspath(save_directory), self, {"model_type": "redsam-mobilesam", **self.made_of})


def published() -> MobileSamModel:
    """The published sizes."""
    return MobileSamModel(
        encoder={"widths": list(WIDTHS), "depths": list(DEPTHS), "heads": list(HEADS)},
        sam={
            "prompt_encoder_config": {"hidden_size": 256, "image_size": 1024, "mask_input_channels": 16},
            "mask_decoder_config": {"hidden_size": 256, "num_attention_heads": 8},
        },
    )


def small(image_size: int) -> MobileSamModel:
    """Some 0.1 M parameters, for tests."""
    return MobileSamModel(
        encoder={"widths": [8, 16, 16, 32], "depths": [1, 1, 1, 1], "heads": [1, 2, 2, 4]},
        sam={
            "prompt_encoder_config": {"hidden_size": 32, "image_size": image_size, "mask_input_channels": 16},
            "mask_decoder_config": {
                "hidden_size": 32,
                "mlp_dim": 64,
                "num_attention_heads": 8,
                "iou_head_hidden_dim": 32,
            },
        },
    )


def blocks(encoder: nn.Module) -> list[nn.Module]:
    """TinyViT's blocks, from the image on."""
    return [block for stage in cast(Any, encoder).stages for block in stage.blocks]


def has_attention(block: nn.Module) -> bool:
    """Whether a block attends; the first stage's only convolve."""
    return any(isinstance(m, nn.LayerNorm) for m in block.modules())
