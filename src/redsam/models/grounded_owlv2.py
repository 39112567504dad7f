"""OWLv2 (Minderer et al., 2023) + a segmenter."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from redsam.models.geometry import Rgb
from redsam.models.grounded import Found, GroundedSegmenter
from redsam.models.grounded_dino import _corners
from redsam.models.grounded_model import GroundedModel
from redsam.models.text import tokens
from redsam.registry import register

CLIP_MEAN: Rgb = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Rgb = (0.26862954, 0.26130258, 0.27577711)


@register("model", "grounded-owlv2", paper="Scaling Open-Vocabulary Object Detection, arXiv 2306.09683", year=2023)
class GroundedOwlv2(GroundedSegmenter):
    """OWLv2's boxes for a text, segmented: threshold 0.1 (its processor's), padded to a square, 960 pixels.

    A text of N things separated by full stops is N queries; a box's score is its best query's probability. The text is
    used as it is; the official demos write "a photo of a ..." themselves. Deviation: the official resize is a Gaussian
    blur (reflecting borders) and an interpolation in floating point; ours is the same in torch, with the blur's tail
    cut at 4 standard deviations as SciPy does.
    """

    family = "grounded-owlv2"
    detector_type = "owlv2"
    classes = ("GroundedModel",)
    model_types = ("redsam-grounded-owlv2",)
    box_threshold = 0.1
    detector_mean: Rgb = CLIP_MEAN
    detector_std: Rgb = CLIP_STD

    def _find(self, image: Tensor, what: str, *, exact: bool) -> Found:
        queries = [part.strip() for part in what.split(".") if part.strip()] or [what]
        limit = int(self.detector.config.text_config.max_position_embeddings)
        given = tokens(self.detector.tokenizer, queries, limit=limit, device=image.device, fixed=True)
        names = {key: given[key] for key in ("input_ids", "attention_mask")}
        out = self.detector(pixel_values=self._pixels(image), **names)
        best = out.logits[0].max(-1)
        height, width = int(image.shape[-2]), int(image.shape[-1])
        side = max(height, width)  # the box's shares are of the padded square
        boxes = _corners(out.pred_boxes[0]) * out.pred_boxes.new_tensor([side / width, side / height] * 2)
        return boxes, best.values.sigmoid(), tuple(queries[int(i)] for i in best.indices)

    def _pixels(self, image: Tensor) -> Tensor:
        weight = next(self.detector.parameters())
        side = int(self.detector.config.vision_config.image_size)
        square = padded(image.to(weight.dtype) if weight.dtype == torch.float64 else image.float())
        fitted = blur_and_zoom(square[None], side)
        mean, std = (fitted.new_tensor(v)[:, None, None] for v in (self.detector_mean, self.detector_std))
        return ((fitted - mean) / std).to(weight.dtype)

    @classmethod
    def tiny(cls, image_size: int) -> nn.Module:
        """Two vision blocks of width 32, 16-pixel patches, one text block, on a tiny SAM."""
        from transformers import Owlv2Config, Owlv2ForObjectDetection, SamConfig, SamModel

        from redsam.models.sam import tiny_vit_config
        from redsam.models.tiny_text import CLIP_LENGTH, CLIP_SIZE, tiny_tokenizer

        words: dict[str, Any] = {
            "vocab_size": CLIP_SIZE, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": CLIP_LENGTH,
            "bos_token_id": CLIP_SIZE - 2, "eos_token_id": CLIP_SIZE - 1,
        }  # fmt: skip
        vision: dict[str, Any] = {
            "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": image_size, "patch_size": 16,
        }  # fmt: skip
        config = Owlv2Config(text_config=words, vision_config=vision, projection_dim=32)
        return GroundedModel(
            Owlv2ForObjectDetection(config),
            SamModel(SamConfig(**tiny_vit_config(image_size))),
            tokenizer=tiny_tokenizer("clip"),
            family=cls.family,
        )


def _linear(size: int, side: int) -> Tensor:
    """side x size matrix of linear interpolation whose borders mirror about the last pixel, as SciPy's zoom."""
    place = (torch.arange(side, dtype=torch.float64) + 0.5) * size / side - 0.5
    place = (size - 1) - ((size - 1) - place.abs()).abs()
    first = place.floor().clamp(0, max(size - 2, 0)).long()
    share = place - first
    taps = torch.zeros(side, size, dtype=torch.float64)
    taps.scatter_add_(1, first[:, None], 1 - share[:, None])
    return taps.scatter_add_(1, (first + 1).clamp(max=size - 1)[:, None], share[:, None])


def padded(image: Tensor) -> Tensor:
    """3xHxW to a square, zeros (black) at the bottom and on the right."""
    height, width = int(image.shape[-2]), int(image.shape[-1])
    side = max(height, width)
    return F.pad(image, (0, side - width, 0, side - height))


def blur_and_zoom(square: Tensor, side: int) -> Tensor:
    """1x3xNxN to 1x3xSxS as the official processor: Gaussian of sigma (N / S - 1) / 2 with mirrored borders, then
    linear interpolation; clipped to the input's range. Differentiable."""
    size = int(square.shape[-1])
    sigma = max(0.0, (size / side - 1) / 2)
    out = square
    if sigma > 0:
        reach = min(int(4 * sigma + 0.5), size - 1)
        steps = torch.arange(-reach, reach + 1, dtype=square.dtype, device=square.device)
        weight = torch.exp(-0.5 * (steps / sigma).square())
        weight = (weight / weight.sum()).view(1, 1, 1, -1).expand(3, 1, 1, -1)
        if reach:
            out = F.conv2d(F.pad(out, (reach, reach, 0, 0), mode="reflect"), weight, groups=3)
            out = F.conv2d(F.pad(out, (0, 0, reach, reach), mode="reflect"), weight.transpose(2, 3), groups=3)
    if size != side:
        taps = _linear(size, side).to(out)
        out = taps @ out @ taps.T
    return out.clamp(float(square.detach().min()), float(square.detach().max()))
