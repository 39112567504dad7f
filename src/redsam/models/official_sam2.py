"""Meta's files of SAM 2 and SAM 2.1 (`sam2.1_hiera_tiny.pt`, `sam2_hiera_large.pt`, ...) as a `transformers.Sam2Model`.

What serves video alone (memory, object pointers) is left out. Names and sizes of the official side:
facebookresearch/sam2, `sam2/modeling/` and `sam2/configs/` (2024).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from redsam.errors import CheckpointError
from redsam.models.official import RULES as SAM_RULES
from redsam.models.official import count, filled, layer_to_official, renamed, shape_of
from redsam.registry import register

TELLTALE = "image_encoder.trunk.patch_embed.proj.weight"
POINTS = "sam_prompt_encoder.point_embeddings."
# Of a video's memory and object pointers; an image needs none of them.
VIDEO = ("memory_", "maskmem_tpos_enc", "no_mem_pos_enc", "no_obj_", "obj_ptr_", "mask_downsample.")

# (official, transformers) name parts, in full; {n} stands for a number that both sides share.
RULES = (
    ("no_mem_embed", "no_memory_embedding"),
    ("image_encoder.trunk.patch_embed.proj.", "vision_encoder.backbone.patch_embed.projection."),
    *(
        (f"image_encoder.trunk.blocks.{{n}}.{official}.", f"vision_encoder.backbone.blocks.{{n}}.{ours}.")
        for official, ours in (
            ("norm1", "layer_norm1"),
            ("norm2", "layer_norm2"),
            ("mlp.layers.0", "mlp.proj_in"),
            ("mlp.layers.1", "mlp.proj_out"),
        )
    ),
    ("image_encoder.trunk.", "vision_encoder.backbone."),
    ("image_encoder.neck.convs.{n}.conv.", "vision_encoder.neck.convs.{n}."),
    ("sam_prompt_encoder.point_embeddings.weight", "prompt_encoder.point_embed.weight"),
    *((f"sam_{a}", b) for a, b in SAM_RULES if a.startswith("prompt_encoder.") and "point_embeddings" not in a),
    ("sam_mask_decoder.transformer.layers.{n}.mlp.layers.0.", "mask_decoder.transformer.layers.{n}.mlp.proj_in."),
    ("sam_mask_decoder.transformer.layers.{n}.mlp.layers.1.", "mask_decoder.transformer.layers.{n}.mlp.proj_out."),
    *((f"sam_{a}", b) for a, b in SAM_RULES if a.startswith("mask_decoder.")),
    ("sam_mask_decoder.", "mask_decoder."),
)


@dataclass(frozen=True, kw_only=True)
class Hiera:
    """What no tensor's shape tells of an encoder: heads of the first stage, blocks with global attention, windows."""

    heads: int
    whole: tuple[int, ...]
    windows: tuple[int, ...] = (8, 4, 14, 7)


# sam2/configs: by width and blocks of each stage; 2.1 has the sizes of 2.
PUBLISHED: dict[tuple[int, tuple[int, ...]], Hiera] = {
    (96, (1, 2, 7, 2)): Hiera(heads=1, whole=(5, 7, 9)),
    (96, (1, 2, 11, 2)): Hiera(heads=1, whole=(7, 10, 13)),
    (112, (2, 3, 16, 3)): Hiera(heads=2, whole=(12, 16, 20)),
    (144, (2, 6, 36, 4)): Hiera(heads=2, whole=(23, 33, 43), windows=(8, 4, 16, 8)),
}


@register("official", "sam2", telltale=TELLTALE)
def read(state: Mapping[str, Tensor], *, where: str) -> nn.Module:
    """Official names and tensors to a `Sam2Model` for 1024 pixels. Raises CheckpointError."""
    from transformers import Sam2Config, Sam2HieraDetConfig, Sam2Model, Sam2VisionConfig

    hiera = _hiera(state, where)
    vision = Sam2VisionConfig(
        backbone_config=Sam2HieraDetConfig(**hiera),
        backbone_channel_list=hiera["embed_dim_per_stage"][::-1],
        fpn_hidden_size=shape_of(state, "image_encoder.neck.convs.0.conv.weight", where)[0],
    )
    config = Sam2Config(vision_config=vision)
    embeddings = [state[f"{POINTS}{n}.weight"] for n in range(count(state, re.escape(POINTS) + r"(\d+)\."))]
    state = {k: v for k, v in state.items() if not k.startswith(POINTS)} | {f"{POINTS}weight": torch.cat(embeddings)}
    return filled(lambda: Sam2Model(config), state, to_official_key, where=where, unused=VIDEO)


def to_official_key(key: str) -> str:
    """One name of `Sam2Model` to Meta's; KeyError when no rule begins as it does."""
    key = renamed(key, RULES)
    if key.startswith("sam_mask_decoder.transformer."):
        return key.replace(".o_proj.", ".out_proj.")
    return layer_to_official(key)


def _hiera(state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """Sam2HieraDetConfig's fields: widths from shapes, the rest from the published sizes."""
    width = shape_of(state, TELLTALE, where)[0]
    blocks = count(state, r"image_encoder\.trunk\.blocks\.(\d+)\.")
    # A stage begins with a block that widens its input.
    starts = [0, *(i for i in range(blocks) if f"image_encoder.trunk.blocks.{i}.proj.weight" in state)]
    stages = tuple(b - a for a, b in zip(starts, [*starts[1:], blocks], strict=True))
    if (width, stages) not in PUBLISHED:
        raise CheckpointError(
            f"{where}: a Hiera of width {width} with stages of {', '.join(map(str, stages))} blocks is no published "
            "SAM 2, and its weights do not tell its windows.",
            hint="Convert it to a transformers folder and load that.",
        )
    known = PUBLISHED[width, stages]
    return {
        "hidden_size": width,
        "num_attention_heads": known.heads,
        "blocks_per_stage": list(stages),
        "embed_dim_per_stage": [width * 2**i for i in range(len(stages))],
        "num_attention_heads_per_stage": [known.heads * 2**i for i in range(len(stages))],
        "window_size_per_stage": list(known.windows),
        "global_attention_blocks": list(known.whole),
        "window_positional_embedding_background_size": list(
            shape_of(state, "image_encoder.trunk.pos_embed", where)[2:]
        ),
    }
