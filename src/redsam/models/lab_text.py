"""The lab's text-prompted model as a Segmenter: small, real, differentiable from the mask to the pixel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from redsam.errors import InputError
from redsam.models.checkpoints import read_own
from redsam.models.geometry import Frame
from redsam.models.hf import TransformersSegmenter
from redsam.models.lab_text_net import LabText, LabTextConfig
from redsam.models.text import Instances, TextSegmenter, union
from redsam.models.values import Encoding, ModelPrompts
from redsam.prompts import Prompt
from redsam.registry import register

TOGETHER = 64  # texts decoded in one call
SPECK = 0.001  # connected parts under this share of the image are no instance of their own


@register("model", "lab-text", year=2026)
class LabTextSegmenter(TextSegmenter, TransformersSegmenter):
    """One mask and one presence score for a text; texts only.

    mask: the mask logits where the presence is above 0.5, else empty. The predicted IoU of a text is presence x
    predicted IoU. `detect` gives the connected parts of the mask, each with presence x its mean mask probability.
    """

    family = "lab-text"
    classes = ("LabText",)
    model_types = ("redsam-lab-text",)
    takes_clicks = False
    threshold = 0.5

    @property
    def dtype(self) -> torch.dtype:
        """Of the decoder."""
        return cast(torch.dtype, self.net.mask_decoder.iou_token.weight.dtype)

    @property
    def mask_size(self) -> tuple[int, int]:
        """There is none."""
        raise InputError(f"{self.name} ({self.family}) takes no mask prompt.", hint="Type: --text 'a dog'")

    def frame(self, height: int, width: int) -> Frame:
        """Padded, as SAM's."""
        side = int(self.net.image_size)
        return Frame(kind=self.kind, height=height, width=width, side=side, mean=self.mean, std=self.std)

    def blocks(self) -> Iterable[nn.Module]:
        """ViT blocks."""
        return cast(Iterable[nn.Module], self.net.vision_encoder.layers)

    def _embed(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.net.embed(pixels), ()

    def _decode_group(
        self, features: Tensor, extra: tuple[Tensor, ...], prompts: ModelPrompts, *, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        raise InputError(f"{self.name} ({self.family}) takes texts only.", hint="Type: --text 'a dog'")

    def _decode_texts(self, encoding: Encoding, asked: Sequence[tuple[int, Prompt]]) -> tuple[Tensor, Tensor]:
        index = torch.tensor([owner for owner, _ in asked], device=encoding.features.device)
        masks, iou, presence = self.net.decode(
            encoding.features.index_select(0, index), [[p.text or ""] for _, p in asked]
        )
        there = presence.sigmoid()
        logits = torch.stack([union(m, s, self.threshold) for m, s in zip(masks, there, strict=True)])
        return logits[:, None], iou.clamp(0, 1) * there

    def _many(self, encoding: Encoding, texts: Sequence[str]) -> list[Instances]:
        out: list[Instances] = []
        for start in range(0, len(texts), TOGETHER):
            masks, _, presence = self.net.decode(encoding.features[:1], [list(texts[start : start + TOGETHER])])
            for k, there in enumerate(presence[0].sigmoid().tolist()):
                if there > self.threshold:
                    out.append(self._parts(encoding.frames[0].logits(masks[:, k : k + 1].float()), there))
                else:  # a part's score is at most the presence
                    out.append(Instances(boxes=torch.zeros(0, 4), scores=torch.zeros(0)))
        return out

    def _instances(self, encoding: Encoding, owner: int, what: str) -> Instances:
        masks, _, presence = self.net.decode(encoding.features[owner : owner + 1], [[what]])
        return self._parts(encoding.frames[owner].logits(masks.float()), float(presence.sigmoid()))

    def _parts(self, mask: Tensor, there: float) -> Instances:
        """The connected parts of a mask, 1x1xHxW logits of the image's size."""
        logits = mask[0, 0].detach().cpu()
        probability = logits.sigmoid().numpy()
        numbered, count = ndimage.label(probability > 0.5, structure=np.ones((3, 3)))
        found = []
        for number, place in enumerate(ndimage.find_objects(numbered, max_label=count), 1):
            part = numbered[place] == number
            if part.sum() >= SPECK * probability.size:
                rows, columns = place
                box = (float(columns.start), float(rows.start), float(columns.stop), float(rows.stop))
                found.append((there * float(probability[place][part].mean()), box))
        found.sort(key=lambda pair: -pair[0])
        return Instances(
            boxes=torch.tensor([box for _, box in found]).view(-1, 4),
            scores=torch.tensor([score for score, _ in found]),
        )

    @classmethod
    def read(cls, folder: Path) -> nn.Module:
        """What `LabText.save_pretrained` wrote, in float32. Raises CheckpointError."""
        return read_own(folder, lambda c: LabText(LabTextConfig(**{k: v for k, v in c.items() if k != "model_type"})))

    @classmethod
    def tiny(cls, image_size: int) -> nn.Module:
        """Encoder and decoder of the tiny SAM, a table of 64 n-grams."""
        from redsam.models.sam import tiny_vit_config

        sam: dict[str, Any] = tiny_vit_config(image_size)
        return LabText(LabTextConfig(sam=sam, buckets=64, width=16, tokens=2))
