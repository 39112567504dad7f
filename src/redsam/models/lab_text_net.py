"""LabText: the small text-prompted network of the lab. SAM's encoder and decoder, prompted by spelled words.

Text encoder: the mean of learned embeddings of all character n-grams (2 to 5, with word ends marked; whole words and
the whole phrase too) hashed into a table, as fastText does (Bojanowski et al., 2017), then two layers to a few prompt
tokens. Any name can be spelled, one never trained on as well. The decoder is SAM's two-way transformer; the token that
predicts IoU also says whether the named thing is there at all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

NGRAMS = (2, 3, 4, 5)
ARTICLES = ("a", "an", "the")


@dataclass(kw_only=True)
class LabTextConfig:
    """sam: `vision_config` and `mask_decoder_config` as SamConfig takes them. buckets, width: the n-gram table.
    tokens: prompt tokens a text becomes."""

    sam: dict[str, Any] = field(default_factory=dict)
    buckets: int = 8192
    width: int = 128
    tokens: int = 4

    def save_pretrained(self, folder: str | Path) -> None:
        """config.json of the folder."""
        content = {"model_type": "redsam-lab-text", **asdict(self)}
        (Path(folder) / "config.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def ngrams(text: str, buckets: int) -> list[int]:
    """Table rows of a text: lower case, leading article dropped, punctuation as spaces. 32-bit FNV-1a modulo buckets,
    the same on every machine."""
    words = "".join(c if c.isalnum() or c in "-'" else " " for c in text.lower()).split()
    if len(words) > 1 and words[0] in ARTICLES:
        words = words[1:]
    phrase = f"<{'_'.join(words)}>"
    pieces = {f"<{word}>" for word in words} | {phrase}
    pieces |= {phrase[i : i + n] for n in NGRAMS for i in range(len(phrase) - n + 1)}
    return [_fnv(piece) % buckets for piece in sorted(pieces)]


def _fnv(piece: str) -> int:
    value = 2166136261
    for byte in piece.encode():
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return value


class NgramEncoder(nn.Module):
    """N texts to NxTxC prompt tokens."""

    def __init__(self, config: LabTextConfig, hidden: int) -> None:
        super().__init__()
        self.buckets, self.tokens, self.hidden = config.buckets, config.tokens, hidden
        self.table = nn.Embedding(config.buckets, config.width)
        self.norm = nn.LayerNorm(config.width)
        self.inner = nn.Linear(config.width, 2 * hidden)
        self.outer = nn.Linear(2 * hidden, config.tokens * hidden)
        nn.init.normal_(self.table.weight, std=0.1)

    def forward(self, texts: Sequence[str]) -> Tensor:
        device = self.table.weight.device
        bags = [torch.tensor(ngrams(t, self.buckets), device=device) for t in texts]
        mean = torch.stack([self.table(bag).mean(0) for bag in bags])
        out = self.outer(nn.functional.gelu(self.inner(self.norm(mean))))
        return cast(Tensor, out).view(len(texts), self.tokens, self.hidden)


class LabText(nn.Module):
    """The network. Names of its parts are SAM's, so that a lab model's weights start it."""

    def __init__(self, config: LabTextConfig) -> None:
        super().__init__()
        from transformers import SamConfig
        from transformers.models.sam import modeling_sam as parts

        self.config = config
        sam: Any = SamConfig(**config.sam)
        for part in (sam.vision_config, sam.mask_decoder_config):  # as SamModel would choose for its parts
            part._attn_implementation = "sdpa"
        untyped: Any = parts.SamPositionalEmbedding
        self.image_size = int(sam.vision_config.image_size)
        hidden = int(sam.mask_decoder_config.hidden_size)
        self.shared_image_embedding = untyped(sam.vision_config)
        self.vision_encoder = parts.SamVisionEncoder(sam.vision_config)
        self.text_encoder = NgramEncoder(config, hidden)
        self.no_mask = nn.Embedding(1, hidden)  # SAM's dense embedding of "no mask given"
        self.mask_decoder: Any = parts.SamMaskDecoder(sam.mask_decoder_config)
        self.presence_head = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, 1))

    def embed(self, pixels: Tensor) -> Tensor:
        """Normalised Bx3xSxS to BxCxhxw."""
        return cast(Tensor, self.vision_encoder(pixels).last_hidden_state)

    def decode(self, features: Tensor, texts: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor, Tensor]:
        """B lists of K texts to mask logits BxKx4hx4w, predicted IoU BxK, presence logits BxK: SAM's mask decoder with
        its single-mask token only."""
        head, (batch, count) = self.mask_decoder, (len(texts), len(texts[0]))
        flat = self.text_encoder([t for row in texts for t in row])
        start = torch.cat([head.iou_token.weight, head.mask_tokens.weight[:1]]).expand(batch, count, -1, -1)
        place = self._place(features).expand(batch * count, -1, -1, -1)
        dense = self.no_mask.weight.view(1, -1, 1, 1)
        out, image = head.transformer(
            point_embeddings=torch.cat([start, flat.view(batch, count, *flat.shape[1:])], 2),
            image_embeddings=(features + dense).repeat_interleave(count, 0),
            image_positional_embeddings=place,
            attention_similarity=None,
            target_embedding=None,
        )[:2]
        image = image.transpose(2, 3).reshape(batch * count, *features.shape[1:])
        up = head.activation(head.upscale_layer_norm(head.upscale_conv1(image)))
        up = head.activation(head.upscale_conv2(up))
        hyper = head.output_hypernetworks_mlps[0](out[:, :, 1])
        height, width = up.shape[-2:]
        logits = (hyper[:, :, None] @ up.reshape(batch, count, up.shape[1], -1)).view(batch, count, height, width)
        return logits, head.iou_prediction_head(out[:, :, 0])[..., 0], self.presence_head(out[:, :, 0])[..., 0]

    def forward(self, pixels: Tensor, texts: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor, Tensor]:
        return self.decode(self.embed(pixels), texts)

    def _place(self, features: Tensor) -> Tensor:
        """1xCxhxw position code of the grid, as SAM's `get_image_wide_positional_embeddings`."""
        height, width = features.shape[-2:]
        basis = self.shared_image_embedding.positional_embedding
        y = (torch.arange(height, device=basis.device, dtype=basis.dtype) + 0.5) / height
        x = (torch.arange(width, device=basis.device, dtype=basis.dtype) + 0.5) / width
        grid = torch.stack([x[None, :].expand(height, width), y[:, None].expand(height, width)], -1)
        place = self.shared_image_embedding(grid)
        return cast(Tensor, place).permute(2, 0, 1)[None].to(features.dtype)

    def save_pretrained(self, folder: str | Path) -> None:
        """config.json and model.safetensors."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.config.save_pretrained(folder)
        state = {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}
        save_file(state, Path(folder) / "model.safetensors", metadata={"format": "pt"})
