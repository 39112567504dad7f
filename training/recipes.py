"""The four lab models: architecture, size, optimisation. One frozen recipe each; `train.py NAME` runs one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel, Sam2Config, Sam2Model, SamConfig, SamModel


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What train.py needs: `config` builds the model, the rest drives it."""

    name: str
    family: str
    config: dict[str, Any]
    batch: int = 16
    lr: float = 2e-3
    weight_decay: float = 0.05
    seed: int = 0

    @property
    def side(self) -> int:
        """Pixels a side of the model's frame."""
        return int(self.config["prompt_encoder_config"]["image_size"])


def sam_config(*, width: int, depth: int, heads: int, every: int) -> dict[str, Any]:
    """SAM at 192 px with 12-px patches: 16 x 16 tokens, 64 x 64 masks; windows of 8, every `every`-th block sees all.

    Patches of 8 (24 x 24 tokens) were tried: a step of 16 images took four times as long on 4 cores (1.4 s against
    0.35 s in the encoder) and is out of reach there."""
    return {
        "vision_config": {
            "hidden_size": width, "output_channels": 128, "num_hidden_layers": depth, "num_attention_heads": heads,
            "image_size": 192, "patch_size": 12, "window_size": 8, "mlp_ratio": 4.0, "initializer_range": 0.02,
            "global_attn_indexes": list(range(every - 1, depth, every)), "num_pos_feats": 64,
        },
        "prompt_encoder_config": {
            "hidden_size": 128, "image_size": 192, "patch_size": 12, "mask_input_channels": 16,
        },
        "mask_decoder_config": {
            "hidden_size": 128, "mlp_dim": 512, "num_attention_heads": 4, "iou_head_hidden_dim": 128,
            "num_hidden_layers": 2,
        },
    }  # fmt: skip


def sam2_config() -> dict[str, Any]:
    """SAM 2 at 192 px: Hiera from stride 4 (48 x 48) down to 32, features at stride 16 (12 x 12), masks 48 x 48 x 4.

    As published, the features are at stride 16 and the maps of strides 4 and 8 go to the decoder."""
    return {
        "vision_config": {
            "backbone_config": {
                "model_type": "sam2_hiera_det_model", "hidden_size": 64, "num_attention_heads": 1,
                "image_size": [192, 192], "patch_kernel_size": [7, 7], "patch_stride": [4, 4], "patch_padding": [3, 3],
                "query_stride": [2, 2], "window_positional_embedding_background_size": [6, 6],
                "num_query_pool_stages": 3, "blocks_per_stage": [1, 2, 5, 2],
                "embed_dim_per_stage": [64, 128, 256, 384], "num_attention_heads_per_stage": [1, 2, 4, 6],
                "window_size_per_stage": [8, 4, 12, 6], "global_attention_blocks": [5, 7], "mlp_ratio": 3.0,
            },
            "backbone_channel_list": [384, 256, 128, 64], "backbone_feature_sizes": [[48, 48], [24, 24], [12, 12]],
            "fpn_hidden_size": 128, "fpn_top_down_levels": [2, 3], "num_feature_levels": 3,
        },
        "prompt_encoder_config": {"hidden_size": 128, "image_size": 192, "patch_size": 16, "mask_input_channels": 16},
        "mask_decoder_config": {
            "hidden_size": 128, "mlp_dim": 512, "num_attention_heads": 4, "iou_head_hidden_dim": 128,
            "num_hidden_layers": 2,
        },
    }  # fmt: skip


RECIPES = {
    r.name: r
    for r in (
        Recipe(name="lab-b", family="sam", config=sam_config(width=160, depth=6, heads=5, every=3)),
        Recipe(name="lab-l", family="sam", config=sam_config(width=192, depth=8, heads=6, every=4), seed=1),
        Recipe(name="lab-h", family="sam", config=sam_config(width=224, depth=8, heads=7, every=4), seed=2),
        Recipe(name="lab2", family="sam2", config=sam2_config(), seed=3),
    )
}


def build(recipe: Recipe) -> PreTrainedModel:
    """A fresh model of the recipe's architecture, still with transformers' own initialisation (see init.py)."""
    if recipe.family == "sam":
        return SamModel(SamConfig(**recipe.config))
    return Sam2Model(Sam2Config(**recipe.config))
