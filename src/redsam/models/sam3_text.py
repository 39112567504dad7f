"""SAM 3 prompted with a text (Carion et al., "SAM 3: Segment Anything with Concepts", 2025) over `Sam3Model`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from redsam.errors import InputError
from redsam.models.geometry import Frame, Kind
from redsam.models.hf import TransformersSegmenter
from redsam.models.text import Instances, TextSegmenter, Uncut, attach, margin, strongest, tokens, union
from redsam.models.values import Encoding, ModelPrompts
from redsam.prompts import Prompt
from redsam.registry import register

TEXT_LENGTH = 32  # Sam3Processor pads and reads so many tokens


@register("model", "sam3", paper="SAM 3: Segment Anything with Concepts, arXiv 2511.16719", year=2025)
class Sam3Text(TextSegmenter, TransformersSegmenter):
    """SAM 3's concept detector: every instance of a text, scores = instance probability x presence, threshold 0.3.

    Texts only; for points and boxes load `sam3-tracker`. The predicted IoU of a text is the highest score, 0 where
    none is above the threshold. A hub model holds both networks: load("text:facebook/sam3") takes this one. Deviation:
    masks are resized as logits, the official post-processing resizes probabilities; gradients run through the box
    refinement that transformers cuts (see `redsam.models.text.Uncut`).
    """

    family = "sam3"
    kind: Kind = "stretch"
    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)
    classes = ("Sam3Model",)
    model_types = ("sam3",)
    takes_clicks = False
    threshold = 0.3

    @property
    def dtype(self) -> torch.dtype:
        """Of the mask decoder."""
        return cast(torch.dtype, next(self.net.mask_decoder.parameters()).dtype)

    @property
    def mask_size(self) -> tuple[int, int]:
        """There is none."""
        raise InputError(f"{self.name} ({self.family}) takes no mask prompt.", hint="Type: --text 'a dog'")

    def frame(self, height: int, width: int) -> Frame:
        """Stretched to the vision encoder's square."""
        side = int(self.net.config.vision_config.image_size)
        return Frame(kind=self.kind, height=height, width=width, side=side, mean=self.mean, std=self.std)

    def blocks(self) -> Iterable[nn.Module]:
        """ViT blocks."""
        return cast(Iterable[nn.Module], self.net.vision_encoder.backbone.layers)

    def _embed(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """features: the coarsest map that the detector reads; extra: the two finer ones, then the places of all."""
        out = self.net.vision_encoder(pixels)
        high, middle, low = out.fpn_hidden_states[:-1]
        places = tuple(p.expand(len(pixels), -1, -1, -1) for p in out.fpn_position_encoding[:-1])
        return low, (high, middle, *places)

    def _decode_group(
        self, features: Tensor, extra: tuple[Tensor, ...], prompts: ModelPrompts, *, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        raise InputError(f"{self.name} ({self.family}) takes texts only.", hint="Type: --text 'a dog'")

    def _ask(self, encoding: Encoding, owners: Sequence[int], texts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """All queries for text g on image owners[g]: mask logits GxQxhxw, boxes GxQx4 in shares, scores GxQ."""
        from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

        limit = min(TEXT_LENGTH, int(self.net.config.text_config.max_position_embeddings))
        given = tokens(getattr(self.net, "tokenizer", None), texts, limit=limit, device=self.device, fixed=True)
        index = torch.tensor(list(owners), device=encoding.features.device)
        maps = [m.index_select(0, index) for m in (*encoding.extra[:2], encoding.features)]
        places = [p.index_select(0, index) for p in encoding.extra[2:]]
        vision = Sam3VisionEncoderOutput(  # the last level is one that the model itself drops
            fpn_hidden_states=(*maps, maps[-1]), fpn_position_encoding=(*places, places[-1])
        )
        with Uncut():
            out = self.net(vision_embeds=vision, input_ids=given["input_ids"], attention_mask=given["attention_mask"])
        return out.pred_masks, out.pred_boxes, out.pred_logits.sigmoid() * out.presence_logits.sigmoid()

    def _instances(self, encoding: Encoding, owner: int, what: str) -> Instances:
        _, boxes, scores = self._ask(encoding, [owner], [what])
        best = strongest(scores[0], self.threshold)
        frame = encoding.frames[owner]
        size = boxes.new_tensor([frame.width, frame.height, frame.width, frame.height])
        return Instances(boxes=boxes[0, best] * size, scores=scores[0, best])

    def _decode_texts(self, encoding: Encoding, asked: Sequence[tuple[int, Prompt]]) -> tuple[Tensor, Tensor]:
        masks, _, scores = self._ask(encoding, [owner for owner, _ in asked], [p.text or "" for _, p in asked])
        logits, iou = [], []
        for own, score in zip(masks, scores, strict=True):
            best = strongest(score, self.threshold)
            logits.append(union(own[best], score[best], self.threshold))
            there = margin(score.detach().amax(), self.threshold) > 0
            iou.append(score.amax() * there)
        return torch.stack(logits)[:, None], torch.stack(iou)[:, None]

    @classmethod
    def tiny(cls, image_size: int) -> nn.Module:
        """Two ViT blocks and two detector layers of width 32, 8-pixel patches, 8 queries, one text block."""
        from transformers import Sam3Config, Sam3Model

        from redsam.models.sam3 import tiny_vision
        from redsam.models.tiny_text import CLIP_LENGTH, CLIP_SIZE, tiny_tokenizer

        layers: dict[str, Any] = {
            "hidden_size": 32, "num_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "dropout": 0.0,
        }  # fmt: skip
        words = {
            "model_type": "clip_text_model", "vocab_size": CLIP_SIZE, "hidden_size": 32, "intermediate_size": 64,
            "projection_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "max_position_embeddings": CLIP_LENGTH, "eos_token_id": CLIP_SIZE - 1, "bos_token_id": CLIP_SIZE - 2,
        }  # fmt: skip
        config = Sam3Config(
            vision_config=tiny_vision(image_size),
            text_config=words,
            geometry_encoder_config=layers,
            detr_encoder_config=layers,
            detr_decoder_config=layers | {"num_queries": 8},
            mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
        )
        return attach(Sam3Model(config), tiny_tokenizer("clip"))
