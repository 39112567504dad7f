"""The promptable forward pass with all four mask tokens, for training: transformers returns either the first or the
last three, and teaching both would cost the decoder twice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def embed(model: Any, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Normalised pixels to (features BxCxhxw, high-resolution maps: empty for SAM, strides 4 and 8 for SAM 2)."""
    if type(model).__name__ == "SamModel":
        return model.vision_encoder(pixels).last_hidden_state, []
    maps = model.get_image_features(pixels, return_dict=True).fpn_hidden_states
    maps = [*maps[:-1], maps[-1] + model.no_memory_embedding]
    shaped = [
        m.permute(1, 2, 0).reshape(pixels.shape[0], -1, *size)
        for m, size in zip(maps, model.backbone_feature_sizes, strict=True)
    ]
    return shaped[-1], shaped[:-1]


def decode_all(
    model: Any,
    features: Tensor,
    high: list[Tensor],
    *,
    points: Tensor | None = None,
    labels: Tensor | None = None,
    boxes: Tensor | None = None,
    masks: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """K prompts of one structure per image: points BxKxNx2, labels BxKxN, boxes BxKx4 in model pixels; masks Bx1xhxw
    logits (K must then be 1). Returns logits BxKx4xhxw, predicted IoU BxKx4; token 0 is the single-mask token."""
    decoder = model.mask_decoder
    batch = features.shape[0]
    if points is None and boxes is None and high:  # SAM 2 gives a mask-only prompt an empty point
        points = torch.zeros(batch, 1, 1, 2, device=features.device)
        labels = -torch.ones(batch, 1, 1, dtype=torch.int, device=features.device)
    with torch.autocast(features.device.type, enabled=False):  # in bfloat16 a coordinate would be off by a pixel
        position = model.get_image_wide_positional_embeddings().repeat(batch, 1, 1, 1)
        sparse, dense = model.prompt_encoder(points, labels, boxes, masks)
    count = 1 if sparse is None else sparse.shape[1]
    first = [decoder.obj_score_token.weight] if high else []
    tokens = torch.cat([*first, decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = tokens.repeat(batch, count, 1, 1)
    if sparse is not None:
        tokens = torch.cat([tokens, sparse], 2)
    image = (features + dense).repeat_interleave(count, 0)
    out, image = decoder.transformer(
        point_embeddings=tokens,
        image_embeddings=image,
        image_positional_embeddings=position.repeat_interleave(count, 0),
        attention_similarity=None,
        target_embedding=None,
    )[:2]
    start = len(first)
    image = image.transpose(2, 3).reshape(batch * count, *features.shape[1:])
    up = decoder.upscale_conv1(image)
    if high:
        up = up + high[1].repeat_interleave(count, 0)
    up = decoder.activation(decoder.upscale_layer_norm(up))
    up = decoder.upscale_conv2(up)
    if high:
        up = up + high[0].repeat_interleave(count, 0)
    up = decoder.activation(up)
    hyper = torch.stack([mlp(out[:, :, start + 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)], 2)
    height, width = up.shape[-2:]
    logits = (hyper @ up.reshape(batch, count, up.shape[1], -1)).reshape(batch, count, -1, height, width)
    return logits, decoder.iou_prediction_head(out[:, :, start])
