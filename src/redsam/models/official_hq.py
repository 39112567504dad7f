"""SAM-HQ's published files (`sam_hq_vit_b.pth`, ... `_l`, `_h`) as a `transformers.SamHQModel`.

Names of the official side: SysCV/sam-hq, `segment_anything/modeling/mask_decoder_hq.py` (2023).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from redsam.models.official import RULES, filled, head_depth, shape_of, sizes, to_official_key
from redsam.registry import register

# The first convolution of what the decoder makes of the encoder's first global block: its input width is the ViT's.
FIRST = "mask_decoder.compress_vit_feat.0.weight"
# What a SAM-HQ has besides a SAM: (official, transformers).
OWN = (
    ("mask_decoder.hf_token.", "mask_decoder.hq_token."),
    ("mask_decoder.hf_mlp.", "mask_decoder.hq_mask_mlp."),
    *(
        (f"mask_decoder.{official}.{n}.", f"mask_decoder.{ours}_{part}.")
        for official, ours in (
            ("compress_vit_feat", "compress_vit"),
            ("embedding_encoder", "encoder"),
            ("embedding_maskfeature", "mask"),
        )
        for n, part in ((0, "conv1"), (1, "norm"), (3, "conv2"))
    ),
)


@register("official", "sam-hq", telltale=FIRST)
def read(state: Mapping[str, Tensor], *, where: str) -> nn.Module:
    """Official names and tensors to a `SamHQModel`. Raises CheckpointError."""
    from transformers import SamHQConfig, SamHQModel

    parts = sizes(state, where)
    parts["mask_decoder_config"]["vit_dim"] = shape_of(state, FIRST, where)[0]
    config, depth = SamHQConfig(**parts), head_depth(state)
    return filled(
        lambda: SamHQModel(config), state, lambda key: to_official_key(key, depth, (*OWN, *RULES)), where=where
    )
