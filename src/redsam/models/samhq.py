"""SAM-HQ (Ke et al., "Segment Anything in High Quality", 2023) over `transformers.SamHQModel`."""

from __future__ import annotations

from torch import Tensor, nn

from redsam.models.sam import Sam, tiny_vit_config
from redsam.models.values import ModelPrompts
from redsam.registry import register


@register("model", "sam-hq", paper="Segment Anything in High Quality, arXiv 2306.01567", year=2023)
class SamHQ(Sam):
    """SAM with a high-quality token that sees the first global block. Its multi-masks are sorted by predicted IoU."""

    family = "sam-hq"
    classes = ("SamHQModel",)
    model_types = ("sam_hq",)

    def __init__(self, model: nn.Module, *, name: str, checkpointing: bool = False) -> None:
        super().__init__(model, name=name, checkpointing=checkpointing)
        from redsam.models._decoder_samhq import corrected  # imports transformers

        corrected(model)

    def _embed(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        out = self.net.vision_encoder(pixels)
        # The decoder reads the first intermediate map only; a model without a global block has none.
        return out.last_hidden_state, tuple(out.intermediate_embeddings[:1])

    def _decode_group(
        self, features: Tensor, extra: tuple[Tensor, ...], prompts: ModelPrompts, *, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        return self._masks(
            features, prompts, multimask=multimask, hq_token_only=False, intermediate_embeddings=list(extra)
        )

    @classmethod
    def tiny(cls, image_size: int) -> nn.Module:
        """The tiny SAM with the high-quality head."""
        from transformers import SamHQConfig, SamHQModel

        config = tiny_vit_config(image_size)
        config["mask_decoder_config"]["vit_dim"] = config["vision_config"]["hidden_size"]
        return SamHQModel(SamHQConfig(**config))
