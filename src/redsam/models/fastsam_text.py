"""FastSAM's text prompt: the mask whose cut-out is nearest to the text for CLIP (Radford et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from redsam.models.text import tokens
from redsam.types import to_uint8

# ultralytics' predictor (8.4.190): masks of no more pixels are passed over; boxes this near to a side end at it; a box
# with more than this IoU with the image is the image.
SPECK = 100
NEAR = 20
WHOLE = 0.9
# openai/CLIP, clip.py (2021).
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@torch.no_grad()
def nearest(clip: Any, image: Tensor, masks: Tensor, boxes: Tensor, text: str) -> Tensor:
    """Index of the mask a text takes, as a tensor of one, or of none. image 3xHxW; masks bool NxHxW; boxes Nx4 in
    pixels. What is not the mask is black in its cut-out."""
    kept, cuts = [], []
    picture = to_uint8(image).permute(1, 2, 0).cpu().numpy()
    for n, (mask, box) in enumerate(zip(masks, snapped(boxes, image.shape[1], image.shape[2]).tolist(), strict=True)):
        x0, y0, x1, y1 = (int(v) for v in box)
        if int(mask.sum()) > SPECK and x1 > x0 and y1 > y0:
            kept.append(n)
            cuts.append(picture[y0:y1, x0:x1] * mask[y0:y1, x0:x1, None].cpu().numpy())
    if not kept:
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    best = int(similarity(clip, cuts, text).argmax())
    return torch.tensor([kept[best]], device=boxes.device)


def snapped(boxes: Tensor, height: int, width: int) -> Tensor:
    """Nx4 boxes, those near to the image's sides stretched to them."""
    x0, y0, x1, y1 = boxes.clone().unbind(1)
    x0, y0 = x0.masked_fill(x0 < NEAR, 0), y0.masked_fill(y0 < NEAR, 0)
    x1, y1 = x1.masked_fill(x1 > width - NEAR, width), y1.masked_fill(y1 > height - NEAR, height)
    out = torch.stack([x0, y0, x1, y1], 1)
    share = (x1 - x0) * (y1 - y0) / (width * height)
    out[share > WHOLE] = out.new_tensor([0, 0, width, height])
    return out


def similarity(clip: Any, cuts: Sequence[Any], text: str) -> Tensor:
    """Cosines of uint8 HxWx3 cut-outs to a text."""
    device = next(clip.parameters()).device
    side = int(clip.config.vision_config.image_size)
    limit = int(clip.config.text_config.max_position_embeddings)
    pixels = torch.stack([_seen(cut, side) for cut in cuts]).to(device, next(clip.parameters()).dtype)
    seen = _features(clip.get_image_features(pixel_values=pixels))
    read = _features(clip.get_text_features(**tokens(clip.tokenizer, [text], limit=limit, device=device)))
    return torch.nn.functional.cosine_similarity(seen, read)


def _features(out: Any) -> Tensor:
    """transformers 5 wraps them."""
    found: Tensor = out if isinstance(out, Tensor) else out.pooler_output
    return found


def _seen(cut: Any, side: int) -> Tensor:
    """CLIP's own preprocessing: shorter side to `side`, bicubic, the middle square of it, normalised."""
    picture = Image.fromarray(np.ascontiguousarray(cut))
    scale = side / min(picture.size)
    wide, high = (max(side, int(v * scale)) for v in picture.size)
    picture = picture.resize((wide, high), Image.Resampling.BICUBIC)
    left, top = round((wide - side) / 2), round((high - side) / 2)
    grey = torch.from_numpy(np.array(picture.crop((left, top, left + side, top + side)))).permute(2, 0, 1).float() / 255
    return (grey - grey.new_tensor(MEAN)[:, None, None]) / grey.new_tensor(STD)[:, None, None]
