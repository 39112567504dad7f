"""FastSAM (Zhao et al., "Fast Segment Anything", 2023): all instances by a YOLO, then the prompt chooses among them.

The YOLO is ultralytics', an optional dependency under the AGPL-3.0. The paper's section 3.3 and ultralytics' own
predictor (8.3) say how a prompt chooses: a point takes every mask it lies in, less those that hold a background point,
and joins them; a box takes the mask of largest IoU with it; a text takes the mask whose cut-out is nearest to it for
CLIP. Confidence 0.4, IoU 0.9 and 1024 pixels are the published settings.

Preprocessing (but for the resize), non-maximum suppression and the choice have no gradient; the masks chosen have one,
through their prototypes, coefficients and scores. Deviations: boxes and masks meet at the network's resolution, not at
the image's, and so does the choice by points and boxes; a mask ends within a pixel of where ultralytics ends it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from redsam.errors import InputError, MissingExtra
from redsam.models.automatic import nms
from redsam.models.checkpoints import read_own
from redsam.models.fastsam_frame import Letterbox
from redsam.models.geometry import MASK_LOGIT, Frame
from redsam.models.hf import TransformersSegmenter
from redsam.models.text import margin
from redsam.models.values import Encoding, ModelPrompts
from redsam.prompts import Prompt
from redsam.registry import register

# ultralytics' defaults: instances of one image, and candidates that suppression looks at.
MOST, LOOKED_AT = 300, 30000
# Masks drawn at one time.
CHUNK = 32
# Where nothing is chosen: how far the nearest candidate's logits stay below an answer.
BELOW = 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """Instances of one image, best first. masks: bool NxSxS on the square. boxes: Nx4 there. rows: N, which candidates
    they are."""

    masks: Tensor
    boxes: Tensor
    rows: Tensor


@register("model", "fastsam", paper="FastSAM, arXiv 2306.12156", year=2023, extra="fastsam")
class FastSam(TransformersSegmenter):
    """Everything at once, then the prompt chooses. Needs the extra `fastsam` (ultralytics, AGPL-3.0).

    One mask for each prompt; its predicted IoU is the score of the best instance chosen, 0 without any.
    """

    family = "fastsam"
    classes = ("FastSamNet",)
    model_types = ("redsam-fastsam",)
    takes_masks = False
    confidence: float = 0.4
    overlap: float = 0.9

    def __init__(self, model: nn.Module, *, name: str, checkpointing: bool = False) -> None:
        super().__init__(model, name=name, checkpointing=checkpointing)
        self.takes_text = self.net.clip is not None

    @classmethod
    def require(cls) -> None:
        """Raise MissingExtra unless ultralytics is installed."""
        if importlib.util.find_spec("ultralytics") is None:
            raise MissingExtra(
                "ultralytics", "fastsam", needed_for="FastSAM is a model of ultralytics (under the AGPL-3.0) and"
            )

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        found: torch.dtype = next(iter(self.net.parameters())).dtype
        return found

    @property
    def mask_size(self) -> tuple[int, int]:
        """There is none."""
        raise InputError(f"{self.name} ({self.family}) takes no mask prompt.", hint="Give a point, a box or a text.")

    def frame(self, height: int, width: int) -> Frame:
        """ultralytics' letterbox."""
        side = int(self.net.side)
        return Letterbox(kind="pad", height=height, width=width, side=side, mean=(0, 0, 0), std=(1, 1, 1))

    def blocks(self) -> Iterable[nn.Module]:
        """None are wrapped: the network is small."""
        raise InputError("Gradient checkpointing is not available for fastsam.", hint="Load it without.")

    def stages(self) -> Sequence[nn.Module]:
        """The backbone's layers in order."""
        return list(self.net.yolo.model[: len(self.net.yolo.yaml["backbone"])])

    def _embed(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        prototypes, candidates = self.net(pixels)
        return prototypes, (candidates,)

    # --- all instances ---------------------------------------------------------------------------------------------
    @torch.no_grad()
    def instances(self, prototypes: Tensor, candidates: Tensor) -> Found:
        """What is found on one image: scores above `confidence`, after non-maximum suppression. prototypes
        KxS/4xS/4, candidates Ax(4 + classes + K), as `FastSamNet` gives them."""
        scores, kinds = candidates[:, 4 : 4 + self.net.classes].float().max(1)
        likely = torch.nonzero(scores > self.confidence).flatten()
        likely = likely[scores[likely].argsort(descending=True, stable=True)[:LOOKED_AT]]
        apart = kinds[likely, None] * 10.0 * self.net.side  # only boxes of one class suppress each other
        kept = likely[nms(candidates[likely, :4].float() + apart, scores[likely], self.overlap)[:MOST]]
        parts = [self.drawn(prototypes, candidates[some]) > 0 for some in torch.split(kept, CHUNK)]
        side = self.net.side
        masks = torch.cat(parts) if parts else torch.zeros(0, side, side, dtype=torch.bool, device=kept.device)
        solid = masks.flatten(1).any(1)
        return Found(masks=masks[solid], boxes=candidates[kept[solid], :4], rows=kept[solid])

    def drawn(self, prototypes: Tensor, rows: Tensor) -> Tensor:
        """NxSxS mask logits of N candidates, with gradients; minus MASK_LOGIT outside of their boxes."""
        side = self.net.side
        low = (rows[:, 4 + self.net.classes :] @ prototypes.flatten(1)).view(-1, 1, *prototypes.shape[1:])
        if not len(low):
            return low.new_zeros((0, side, side))
        masks = F.interpolate(low, (side, side), mode="bilinear", align_corners=False)[:, 0]
        x0, y0, x1, y1 = rows[:, :4].detach().T[:, :, None]
        place = torch.arange(side, device=rows.device)
        inside = ((place >= y0) & (place < y1))[:, :, None] & ((place >= x0) & (place < x1))[:, None, :]
        return torch.where(inside, masks, masks.new_tensor(-MASK_LOGIT))

    # --- the prompt chooses ----------------------------------------------------------------------------------------
    def _decode_group(
        self, features: Tensor, extra: tuple[Tensor, ...], prompts: ModelPrompts, *, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        shared: dict[int, Found] = {}
        answers = []
        for g, (prototypes, candidates) in enumerate(zip(features, extra[0], strict=True)):
            key = candidates.data_ptr()  # prompts of one image share what is found on it
            if key not in shared:
                shared[key] = self.instances(prototypes, candidates)
            found = shared[key]
            rows = found.rows[chosen(found.masks, prompts, g)]
            answers.append(self._answer(prototypes, candidates, rows, prompts, g))
        return _stacked(answers)

    def _answer(
        self, prototypes: Tensor, candidates: Tensor, rows: Tensor, prompts: ModelPrompts | None, g: int
    ) -> tuple[Tensor, Tensor]:
        """SxS logits of the union of the chosen and the best score; of none an empty mask that has a gradient, which
        of the likeliest candidates the prompt would take."""
        if len(rows):
            return self._union(prototypes, candidates[rows])
        with torch.no_grad():
            likely = candidates[:, 4 : 4 + self.net.classes].amax(1).argsort(descending=True, stable=True)[:CHUNK]
            near = torch.zeros(len(likely), dtype=torch.bool, device=likely.device)
            if prompts is not None:
                near = chosen(self.drawn(prototypes, candidates[likely]) > 0, prompts, g)
            row = likely[near.float().argmax()][None]
        low, _ = self._union(prototypes, candidates[row])
        return low - (low.detach().amax() + BELOW).clamp(min=0), low.new_zeros(())

    def _union(self, prototypes: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """At each pixel the largest of min(logit, what the score is worth), see text.py; and the largest score."""
        scores = rows[:, 4 : 4 + self.net.classes].amax(1)
        worth = margin(scores, self.confidence)[:, None, None]
        return torch.minimum(self.drawn(prototypes, rows), worth).amax(0), scores.max()

    def _decode_texts(self, encoding: Encoding, asked: Sequence[tuple[int, Prompt]]) -> tuple[Tensor, Tensor]:
        from redsam.models.fastsam_text import nearest

        answers = []
        for owner, prompt in asked:
            prototypes, candidates, frame = encoding.features[owner], encoding.extra[0][owner], encoding.frames[owner]
            found = self.instances(prototypes, candidates)
            masks = [frame.logits(self.drawn(prototypes, candidates[some]).detach()[:, None])[:, 0] > 0
                     for some in torch.split(found.rows, CHUNK)]  # fmt: skip
            pick = nearest(
                self.net.clip, encoding.images[owner].detach(), masks, on_image(frame, found.boxes), prompt.text or ""
            )
            answers.append(self._answer(prototypes, candidates, found.rows[pick], None, 0))
        return _stacked(answers)

    # --- where it comes from ---------------------------------------------------------------------------------------
    @classmethod
    def read(cls, folder: Path) -> nn.Module:
        """What `FastSamNet.save_pretrained` wrote, in float32. Raises CheckpointError."""
        from redsam.models.fastsam_net import built

        return read_own(folder, lambda c: built(c["yolo"], side=int(c["side"])))

    @classmethod
    def tiny(cls, image_size: int) -> nn.Module:
        """Seven layers, 16 to 32 wide."""
        cls.require()
        from redsam.models.fastsam_net import small

        return small(image_size)


def _stacked(answers: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """G answers of SxS and a score to Gx1xSxS and Gx1."""
    return torch.stack([low for low, _ in answers])[:, None], torch.stack([score for _, score in answers])[:, None]


def on_image(frame: Frame, boxes: Tensor) -> Tensor:
    """Nx4 boxes on the square to original pixels, inside the image."""
    assert isinstance(frame, Letterbox)
    left, _, top, _ = frame.bars
    height, width = frame.content
    shift, scale = boxes.new_tensor([left, top] * 2), boxes.new_tensor([frame.width / width, frame.height / height] * 2)
    limits = boxes.new_tensor([frame.width, frame.height] * 2)
    return torch.minimum(((boxes - shift) * scale).clamp(min=0), limits)


def chosen(masks: Tensor, prompts: ModelPrompts, g: int) -> Tensor:
    """N bool: which of NxSxS bool masks prompt g takes."""
    out = torch.zeros(len(masks), dtype=torch.bool, device=masks.device)
    if not len(masks):
        return out
    side = masks.shape[-1]
    if prompts.boxes is not None:
        x0, y0, x1, y1 = (int(v) for v in prompts.boxes[g, 0].round().clamp(0, side))
        inside = masks[:, y0:y1, x0:x1].sum((1, 2)).double()
        either = (y1 - y0) * (x1 - x0) + masks.sum((1, 2)).double() - inside
        out[(inside / either).argmax()] = True
    if prompts.points is not None and prompts.labels is not None:
        x, y = prompts.points[g, 0].floor().long().clamp(0, side - 1).unbind(-1)
        there, labels = masks[:, y, x], prompts.labels[g, 0]
        wanted = there[:, labels == 1].any(1) if bool((labels == 1).any()) else torch.ones_like(out)
        out |= wanted & ~there[:, labels == 0].any(1)
    return out
