"""SAM-HQ's mask decoder as its authors have it.

transformers' own (5.23) drops the image embedding that its two-way transformer returns and draws the masks on the one
that went in, rows and columns exchanged; published weights then give other masks than the authors' package.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.models.sam_hq.modeling_sam_hq import SamHQMaskDecoder


class Decoder(SamHQMaskDecoder):
    """Takes and gives what transformers' decoder does. Masks of several are sorted by predicted IoU."""

    def forward(  # type: ignore[override]  # takes whatever transformers hands on
        self,
        image_embeddings: Tensor,
        image_positional_embeddings: Tensor,
        sparse_prompt_embeddings: Tensor | None,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
        hq_token_only: bool = False,
        intermediate_embeddings: Any = None,
        attention_similarity: Tensor | None = None,
        target_embedding: Tensor | None = None,
        **_: Any,
    ) -> tuple[Tensor, Tensor]:
        """(BxPxMxhxw logits, BxPxM predicted IoU)."""
        own = cast(Any, self)
        batch, channels, height, width = image_embeddings.shape
        tokens = torch.cat([own.iou_token.weight, own.mask_tokens.weight, own.hq_token.weight])[None, None]
        count = 1 if sparse_prompt_embeddings is None else sparse_prompt_embeddings.shape[1]
        tokens = tokens.expand(batch, count, -1, -1)
        if sparse_prompt_embeddings is not None:
            tokens = torch.cat([tokens, sparse_prompt_embeddings.to(tokens.dtype)], 2)
        answers, seen = own.transformer(
            point_embeddings=tokens,
            image_embeddings=(image_embeddings + dense_prompt_embeddings).repeat_interleave(count, 0),
            image_positional_embeddings=image_positional_embeddings.repeat_interleave(count, 0),
            attention_similarity=attention_similarity,
            target_embedding=target_embedding,
        )[:2]
        seen = seen.transpose(2, 3).reshape(batch * count, channels, height, width)
        plain = own.activation(own.upscale_layer_norm(own.upscale_conv1(seen)))
        plain = own.activation(own.upscale_conv2(plain))
        fine = self._through("encoder", image_embeddings)
        if intermediate_embeddings:
            fine = fine + self._through("compress_vit", intermediate_embeddings[0].permute(0, 3, 1, 2))
        fine = self._through("mask", plain) + fine.expand(batch, -1, -1, -1).repeat_interleave(count, 0)
        drawn = [
            self._drawn(network(answers[:, :, 1 + n]), fine if n == len(own.output_hypernetworks_mlps) else plain)
            for n, network in enumerate((*own.output_hypernetworks_mlps, own.hq_mask_mlp))
        ]
        iou = own.iou_prediction_head(answers[:, :, 0])
        masks, best = torch.stack(drawn[:-1], 2), drawn[-1][:, :, None]
        if multimask_output:
            iou, order = iou[:, :, 1:].sort(dim=2, descending=True)
            masks = masks[:, :, 1:].gather(2, order[..., None, None].expand(-1, -1, -1, *masks.shape[-2:]))
        else:
            iou, masks = iou[:, :, :1], masks[:, :, :1]
        return best if hq_token_only else masks + best, iou

    def _through(self, name: str, maps: Tensor) -> Tensor:
        """Convolution, norm, activation, convolution of one of the three small networks."""
        own = cast(Any, self)
        maps = getattr(own, f"{name}_norm")(getattr(own, f"{name}_conv1")(maps))
        return cast(Tensor, getattr(own, f"{name}_conv2")(own.activation(maps)))

    @staticmethod
    def _drawn(weights: Tensor, maps: Tensor) -> Tensor:
        """BxPxC weights of (B P)xCxhxw maps to BxPxhxw."""
        return torch.einsum("bpc,bpchw->bphw", weights, maps.view(*weights.shape[:2], *maps.shape[1:]))


def corrected(model: nn.Module) -> None:
    """Give a SamHQModel this decoder; its weights stay."""
    decoder = cast(Any, model).mask_decoder
    if type(decoder) is SamHQMaskDecoder:
        decoder.__class__ = Decoder
