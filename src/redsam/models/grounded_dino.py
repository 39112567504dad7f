"""Grounding DINO (Liu et al., 2023) + a segmenter: the text-prompted model of "Red-Teaming Segment Anything Model"."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from redsam.models.geometry import IMAGENET_MEAN, IMAGENET_STD, Rgb
from redsam.models.grounded import Found, GroundedSegmenter
from redsam.models.grounded_model import GroundedModel
from redsam.models.resample import resize, resize_like_pillow
from redsam.models.text import Uncut, tokens
from redsam.registry import register
from redsam.types import from_uint8, to_uint8


@register("model", "grounded-dino", paper="Grounding DINO, arXiv 2303.05499, and a promptable segmenter", year=2023)
class GroundedDino(GroundedSegmenter):
    """Grounding DINO's boxes for a text, segmented: box_threshold 0.3, text_threshold 0.25, short side 800, long 1333.

    The text becomes lower case and ends in a full stop, as the official `preprocess_caption`; full stops inside it
    separate several things to find. A box's score is the highest probability of any token; text_threshold only says
    which words are its label. Deviation: transformers stops gradients between the decoder's refinement steps, here
    they run through (see `redsam.models.text.Uncut`).
    """

    family = "grounded-dino"
    detector_type = "grounding-dino"
    classes = ("GroundedModel",)
    model_types = ("redsam-grounded-dino",)
    box_threshold = 0.3
    text_threshold: float = 0.25
    short, long = 800, 1333
    detector_mean: Rgb = IMAGENET_MEAN
    detector_std: Rgb = IMAGENET_STD

    def __init__(self, model: nn.Module, **more: Any) -> None:
        super().__init__(model, **more)
        assert isinstance(model, GroundedModel)
        self.short, self.long = model.settings.get("sides", (self.short, self.long))

    def _find(self, image: Tensor, what: str, *, exact: bool) -> Found:
        caption = what.lower().strip()
        given = tokens(
            self.detector.tokenizer,
            [caption if caption.endswith(".") else f"{caption}."],
            limit=int(self.detector.config.max_text_len),
            device=image.device,
        )
        pixels = self._pixels(image[None], exact=exact)
        with Uncut():
            out = self.detector(pixel_values=pixels, **given)
        probability = out.logits[0].sigmoid()
        ids = given["input_ids"][0]
        return _corners(out.pred_boxes[0]), probability.amax(-1), self._labels(probability.detach(), ids)

    def _pixels(self, image: Tensor, *, exact: bool) -> Tensor:
        size = shrunk((int(image.shape[-2]), int(image.shape[-1])), short=self.short, long=self.long)
        fitted = from_uint8(resize_like_pillow(to_uint8(image), size)) if exact else resize(image, size)
        mean, std = (fitted.new_tensor(v)[:, None, None] for v in (self.detector_mean, self.detector_std))
        weight = next(self.detector.parameters())
        return ((fitted - mean) / std).to(weight.dtype)

    def _labels(self, probability: Tensor, ids: Tensor) -> tuple[str, ...]:
        """Per query the words whose tokens are likelier than text_threshold, first and last token left out."""
        named = probability[:, : len(ids)] > self.text_threshold
        named[:, [0, len(ids) - 1]] = False
        tokenizer = self.detector.tokenizer
        return tuple(str(tokenizer.decode(ids[row].tolist())).strip(" .") for row in named)

    @classmethod
    def tiny(cls, image_size: int) -> nn.Module:
        """A four-stage Swin of width 16, two encoder and decoder layers of width 64, 8 queries, on a tiny SAM."""
        from transformers import (
            BertConfig,
            GroundingDinoConfig,
            GroundingDinoForObjectDetection,
            SamConfig,
            SamModel,
            SwinConfig,
        )

        from redsam.models.sam import tiny_vit_config
        from redsam.models.tiny_text import BERT_SIZE, tiny_tokenizer

        backbone = SwinConfig(
            image_size=image_size,
            embed_dim=16,
            depths=[1, 1, 1, 1],
            num_heads=[1, 1, 2, 2],
            window_size=4,
            **cast(dict[str, Any], {"out_features": ["stage2", "stage3", "stage4"]}),
        )
        words = BertConfig(
            vocab_size=BERT_SIZE,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=64,
        )
        config = GroundingDinoConfig(
            backbone_config=backbone,
            text_config=words,
            num_queries=8,
            d_model=64,
            encoder_layers=2,
            encoder_ffn_dim=64,
            encoder_attention_heads=2,
            decoder_layers=2,
            decoder_ffn_dim=64,
            decoder_attention_heads=2,
            max_text_len=64,
        )
        return GroundedModel(
            GroundingDinoForObjectDetection(config),
            SamModel(SamConfig(**tiny_vit_config(image_size))),
            tokenizer=tiny_tokenizer("bert"),
            family=cls.family,
            settings={"sides": (image_size, 2 * image_size)},
        )


def shrunk(size: tuple[int, int], *, short: int, long: int) -> tuple[int, int]:
    """(height, width) with the short side `short`, or less where the long side would exceed `long`; rounded as the
    official `get_size_with_aspect_ratio`: the other side is cut to whole pixels."""
    low, high = min(size), max(size)
    exact = float(short)
    if high / low * short > long:
        exact = long * low / high
    side = round(exact)
    if low == side:
        return size
    other = int(exact * high / low)
    return (other, side) if size[1] < size[0] else (side, other)


def _corners(boxes: Tensor) -> Tensor:
    """Kx4 (centre x, centre y, width, height) to (x0, y0, x1, y1)."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return torch.cat([centre - half, centre + half], 1)
