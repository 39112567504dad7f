"""FastSAM (Zhao et al., "Fast Segment Anything", 2023): all instances by a YOLO, then the prompt chooses among them.

The YOLO is ultralytics', an optional dependency under the AGPL-3.0. The paper's section 3.3 and ultralytics' own
predictor (8.4.190) say how a prompt chooses: a point takes every mask it lies in, less those that hold a background
point, and joins them; a box takes the mask of largest IoU with it; a text takes the mask whose cut-out is nearest to it
for CLIP. Confidence 0.4, IoU 0.9 and 1024 pixels are the published settings.

Boxes and masks meet in original pixels, as with ultralytics' `retina_masks=True`, which is what FastSAM's authors use;
the decoder's masks are therefore as large as the image. Preprocessing (but for the resize), non-maximum suppression and
the choice have no gradient; the masks chosen have one, through their prototypes, coefficients and scores.
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
    """Instances of one image, best first. masks: bool NxHxW in original pixels. rows: N, which candidates they are."""

    masks: Tensor
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

    def frame(self, height: int, width: int) -> Letterbox:
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
    def instances(self, prototypes: Tensor, candidates: Tensor, frame: Frame) -> Found:
        """What is found on one image: scores above `confidence`, after non-maximum suppression, that cover a pixel.
        prototypes KxS/4xS/4, candidates Ax(4 + classes + K), as `FastSamNet` gives them; frame: of the image."""
        scores, kinds = candidates[:, 4 : 4 + self.net.classes].float().max(1)
        likely = torch.nonzero(scores > self.confidence).flatten()
        likely = likely[scores[likely].argsort(descending=True, stable=True)[:LOOKED_AT]]
        apart = kinds[likely, None] * 10.0 * self.net.side  # only boxes of one class suppress each other
        kept = likely[nms(candidates[likely, :4].float() + apart, scores[likely], self.overlap)[:MOST]]
        masks = torch.cat([self.drawn(prototypes, candidates[some], frame) > 0 for some in torch.split(kept, CHUNK)])
        solid = masks.flatten(1).any(1)
        return Found(masks=masks[solid], rows=kept[solid])

    def drawn(self, prototypes: Tensor, rows: Tensor, frame: Frame) -> Tensor:
        """NxHxW mask logits of N candidates in original pixels, with gradients; minus MASK_LOGIT outside of their
        boxes."""
        assert isinstance(frame, Letterbox)
        if not len(rows):
            return rows.new_zeros((0, frame.height, frame.width))
        masks = frame.masks((rows[:, 4 + self.net.classes :] @ prototypes.flatten(1)).view(-1, *prototypes.shape[1:]))
        x0, y0, x1, y1 = frame.boxes(rows[:, :4].detach()).T[:, :, None]
        down, across = (torch.arange(n, device=rows.device) for n in masks.shape[1:])
        inside = ((down >= y0) & (down < y1))[:, :, None] & ((across >= x0) & (across < x1))[:, None, :]
        return torch.where(inside, masks, masks.new_tensor(-MASK_LOGIT))

    # --- the prompt chooses ----------------------------------------------------------------------------------------
    def _decode_group(
        self, features: Tensor, extra: tuple[Tensor, ...], prompts: ModelPrompts, *, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        shared: dict[int, Found] = {}  # prompts of one image share what is found on it
        faint: dict[int, Found] = {}
        answers = []
        for g, (prototypes, candidates) in enumerate(zip(features, extra[0], strict=True)):
            owner, frame = prompts.owners[g], prompts.frames[g]
            if owner not in shared:
                shared[owner] = self.instances(prototypes, candidates, frame)
            rows = shared[owner].rows[chosen(shared[owner].masks, prompts, g)]
            if len(rows):
                answers.append(self._union(prototypes, candidates[rows], frame))
                continue
            if owner not in faint:
                likely = self._likeliest(candidates)
                faint[owner] = Found(masks=self.drawn(prototypes, candidates[likely], frame) > 0, rows=likely)
            nearest = chosen(faint[owner].masks, prompts, g).float().argmax()  # the first where it chooses none of them
            answers.append(self._nothing(prototypes, candidates[faint[owner].rows[nearest]], frame))
        return _stacked(answers)

    def _likeliest(self, candidates: Tensor) -> Tensor:
        """Rows of the candidates of highest score, found or not."""
        return candidates[:, 4 : 4 + self.net.classes].detach().amax(1).argsort(descending=True, stable=True)[:CHUNK]

    def _nothing(self, prototypes: Tensor, row: Tensor, frame: Frame) -> tuple[Tensor, Tensor]:
        """HxW logits of an empty mask that has the gradient of a candidate's; the score is 0."""
        low, _ = self._union(prototypes, row[None], frame)
        return low - (low.detach().amax() + BELOW).clamp(min=0), low.new_zeros(())

    def _union(self, prototypes: Tensor, rows: Tensor, frame: Frame) -> tuple[Tensor, Tensor]:
        """HxW: at each pixel the largest of min(logit, what the score is worth), see text.py; and the largest score."""
        scores = rows[:, 4 : 4 + self.net.classes].amax(1)
        worth = margin(scores, self.confidence)[:, None, None]
        return torch.minimum(self.drawn(prototypes, rows, frame), worth).amax(0), scores.max()

    def _decode_texts(self, encoding: Encoding, asked: Sequence[tuple[int, Prompt]]) -> tuple[Tensor, Tensor]:
        from redsam.models.fastsam_text import nearest

        answers, shared = [], dict[int, Found]()
        for owner, prompt in asked:
            prototypes, candidates, frame = encoding.features[owner], encoding.extra[0][owner], encoding.frames[owner]
            assert isinstance(frame, Letterbox)
            if owner not in shared:
                shared[owner] = self.instances(prototypes, candidates, frame)
            found = shared[owner]
            boxes = frame.boxes(candidates[found.rows, :4].detach())
            pick = nearest(self.net.clip, encoding.images[owner].detach(), found.masks, boxes, prompt.text or "")
            if len(pick):
                answers.append(self._union(prototypes, candidates[found.rows[pick]], frame))
            else:
                answers.append(self._nothing(prototypes, candidates[self._likeliest(candidates)[0]], frame))
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
    """G answers of H_gxW_g and a score to Gx1xCxC and Gx1, C the longest side of all: a square, as other decoders'."""
    side = max(max(low.shape) for low, _ in answers)
    square = [F.pad(low, (0, side - low.shape[1], 0, side - low.shape[0]), value=-MASK_LOGIT) for low, _ in answers]
    return torch.stack(square)[:, None], torch.stack([score for _, score in answers])[:, None]


def chosen(masks: Tensor, prompts: ModelPrompts, g: int) -> Tensor:
    """N bool: which of NxHxW bool masks prompt g takes. Coordinates are cut to whole pixels, as ultralytics does."""
    out = torch.zeros(len(masks), dtype=torch.bool, device=masks.device)
    if not len(masks):
        return out
    height, width = masks.shape[1:]
    if prompts.boxes is not None:
        x0, y0, x1, y1 = (max(int(v), 0) for v in prompts.boxes[g, 0])
        x1, y1 = min(x1, width), min(y1, height)
        inside = masks[:, y0:y1, x0:x1].sum((1, 2)).double()
        either = (y1 - y0) * (x1 - x0) + masks.sum((1, 2)).double() - inside
        out[(inside / either).argmax()] = True
    if prompts.points is not None and prompts.labels is not None:
        x, y = prompts.points[g, 0].long().unbind(-1)
        there, labels = masks[:, y.clamp(0, height - 1), x.clamp(0, width - 1)], prompts.labels[g, 0]
        wanted = there[:, labels == 1].any(1) if bool((labels == 1).any()) else torch.ones_like(out)
        out |= wanted & ~there[:, labels == 0].any(1)
    return out
