"""MobileSAM (Zhang et al., "Faster Segment Anything: Towards Lightweight SAM for Mobile Applications", 2023): TinyViT
from timm, an optional dependency, in front of SAM's decoder. Reads the authors' `mobile_sam.pt` too."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from redsam.errors import MissingExtra
from redsam.models.checkpoints import read_own
from redsam.models.official import RULES, filled, renamed, to_official_key
from redsam.models.sam import Sam
from redsam.registry import register

TELLTALE = "image_encoder.layers.0.blocks.0.conv1.c.weight"
# The classifier TinyViT was trained with, and an index table that some files carry.
UNUSED = ("image_encoder.norm_head.", "image_encoder.head.")
TABLE = ".attention_bias_idxs"

# (official, ours); {n} and {m} stand for numbers that both sides share. timm puts the step that halves the resolution
# at the beginning of a stage, the authors at the end of the one before.
ENCODER = (
    ("image_encoder.patch_embed.seq.0.", "vision_encoder.patch_embed.conv1."),
    ("image_encoder.patch_embed.seq.2.", "vision_encoder.patch_embed.conv2."),
    ("image_encoder.layers.{n}.blocks.{m}.", "vision_encoder.stages.{n}.blocks.{m}."),
)
NORMED = re.compile(r"\.(conv|bn)\.(?=\w+$)")  # a convolution and its norm: `c` and `bn` with the authors
DOWN = re.compile(r"vision_encoder\.stages\.(\d+)\.downsample\.(.*)")


@register("model", "mobilesam", paper="MobileSAM, arXiv 2306.14289", year=2023, extra="mobilesam")
class MobileSam(Sam):
    """SAM with a TinyViT encoder of 5 M weights. Needs the extra `mobilesam` (timm)."""

    family = "mobilesam"
    classes = ("MobileSamModel",)
    model_types = ("redsam-mobilesam",)

    @classmethod
    def require(cls) -> None:
        """Raise MissingExtra unless timm is installed."""
        if importlib.util.find_spec("timm") is None:
            raise MissingExtra("timm", "mobilesam", needed_for="The model family mobilesam")

    def blocks(self) -> Iterable[nn.Module]:
        """TinyViT's blocks, those with attention first."""
        from redsam.models._mobilesam_net import blocks, has_attention

        return sorted(blocks(self.net.vision_encoder), key=has_attention, reverse=True)

    def stages(self) -> Sequence[nn.Module]:
        """TinyViT's blocks in order."""
        from redsam.models._mobilesam_net import blocks

        return blocks(self.net.vision_encoder)

    @classmethod
    def read(cls, folder: Path) -> nn.Module:
        """What `MobileSamModel.save_pretrained` wrote, in float32. Raises CheckpointError."""
        from redsam.models._mobilesam_net import MobileSamModel

        return read_own(folder, lambda c: MobileSamModel(encoder=c["encoder"], sam=c["sam"]))

    @classmethod
    def tiny(cls, image_size: int) -> nn.Module:
        """Four stages of one block, 8 to 32 wide."""
        cls.require()
        from redsam.models._mobilesam_net import small

        return small(image_size)


@register("official", "mobilesam", telltale=TELLTALE)
def read(state: Mapping[str, Tensor], *, where: str) -> nn.Module:
    """The authors' names and tensors to a `MobileSamModel`. Raises CheckpointError."""
    from redsam.models._mobilesam_net import published

    state = {k: v for k, v in state.items() if not k.endswith((TABLE, "num_batches_tracked"))}
    return filled(published, state, official_key, where=where, unused=UNUSED)


def official_key(key: str) -> str:
    """One name of `MobileSamModel` to the authors'; KeyError when MobileSAM has no such weight."""
    if not key.startswith("vision_encoder.") or ".neck." in key:
        return to_official_key(key, 3, RULES)
    key = NORMED.sub(lambda m: ".c." if m[1] == "conv" else ".bn.", key)
    if down := DOWN.fullmatch(key):
        return f"image_encoder.layers.{int(down[1]) - 1}.downsample.{down[2]}"
    return renamed(key, ENCODER)
