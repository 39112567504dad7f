"""Grounded segmentation: an open-vocabulary detector finds boxes for a text, any Segmenter turns them into a mask.

LangSAM's recipe (Medeiros, 2023; attacked in Jankowski et al., "Red-Teaming Segment Anything Model", 2024): every box
above the threshold goes to the segmenter as a box prompt of one mask (multimask_output=False), no suppression of
overlaps. The predicted IoU of a text is the highest among its boxes, 0 when there is none.

Two ways to follow gradients. frozen_boxes=False (adaptive): the detector looks again at every image, and gradients run
through its boxes and scores as well. frozen_boxes=True (the paper's): an attack asks the detector once, on the clean
image, and gradients run through the segmenter only; what is delivered is asked with the same boxes.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from redsam import registry
from redsam.errors import InputError
from redsam.models import pipeline
from redsam.models.base import Segmenter
from redsam.models.checkpoints import read_config
from redsam.models.geometry import MASK_LOGIT, Frame
from redsam.models.grounded_model import GroundedModel
from redsam.models.hf import TransformersSegmenter
from redsam.models.text import Instances, TextSegmenter, margin, strongest
from redsam.models.values import Encoding, Images, ModelPrompts
from redsam.prompts import Box, Prompt

Found = tuple[Tensor, Tensor, tuple[str, ...]]


class GroundedSegmenter(TextSegmenter, TransformersSegmenter):
    """Detector + segmenter. Points, boxes and masks go straight to the segmenter."""

    detector_type: str = ""  # of the detector's config.json
    box_threshold: float = 0.3

    def __init__(
        self, model: nn.Module, *, name: str, checkpointing: bool = False, inner: Segmenter | None = None
    ) -> None:
        assert isinstance(model, GroundedModel)
        family = _family_of(model.segmenter) if inner is None else None
        self.inner = inner or cast(Any, family)(model.segmenter, name=name, checkpointing=checkpointing)
        super().__init__(model, name=name)
        self.net = getattr(self.inner, "net", self.inner.model)
        self.detector = cast(Any, model.detector)
        self.threshold = model.settings.get("box_threshold", self.box_threshold)
        self.frozen_boxes = bool(model.settings.get("frozen_boxes", False))
        self.takes_clicks = self.inner.takes_clicks
        self.differentiable = self.inner.differentiable

    @classmethod
    def read(cls, folder: Path) -> nn.Module:
        """What `GroundedModel.save_pretrained` wrote. Raises CheckpointError."""
        from redsam.models.loading import load
        from redsam.models.loading_text import read_detector

        config = read_config(folder, str(folder))
        detector, tokenizer, _ = read_detector(str(folder / "detector"))
        inner = load(folder / "segmenter").model
        config.pop("model_type", None)
        return GroundedModel(detector, inner, tokenizer=tokenizer, family=cls.family, settings=config)

    # --- the segmenter's own part, passed on -----------------------------------------------------------------------
    @property
    def dtype(self) -> torch.dtype:
        """The segmenter's; the detector stays in float32 where that is half precision."""
        return self.inner.dtype

    @property
    def mask_size(self) -> tuple[int, int]:
        """The segmenter's."""
        return self.inner.mask_size

    def blocks(self) -> Iterable[nn.Module]:
        """The segmenter's encoder blocks."""
        return self.inner.stages()

    def frame(self, height: int, width: int) -> Frame:
        """The segmenter's."""
        return self.inner.frame(height, width)

    def _embed(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.inner._embed(pixels)

    def _decode_group(
        self, features: Tensor, extra: tuple[Tensor, ...], prompts: ModelPrompts, *, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        return self.inner._decode_group(features, extra, prompts, multimask=multimask)

    # --- texts -----------------------------------------------------------------------------------------------------
    @abstractmethod
    def _find(self, image: Tensor, what: str, *, exact: bool) -> Found:
        """All queries of the detector on one 3xHxW image: boxes Kx4 (x0, y0, x1, y1) as shares of its width and
        height, scores K, labels; with gradients unless `exact`."""

    def _instances(self, encoding: Encoding, owner: int, what: str) -> Instances:
        boxes, scores, labels = self._find(encoding.images[owner], what, exact=encoding.exact)
        best = strongest(scores, self.threshold)
        frame = encoding.frames[owner]
        size = boxes.new_tensor([frame.width, frame.height, frame.width, frame.height])
        chosen = tuple(labels[int(k)] for k in best) if labels else ()
        return Instances(boxes=boxes[best] * size, scores=scores[best], labels=chosen)

    def _decode_texts(self, encoding: Encoding, asked: Sequence[tuple[int, Prompt]]) -> tuple[Tensor, Tensor]:
        seen: dict[tuple[int, str], Instances] = {}
        parts: list[tuple[Tensor, Tensor | None]] = []  # boxes in original pixels, margins (None: frozen)
        for owner, prompt in asked:
            if prompt.found is not None:
                parts.append((torch.tensor(prompt.found, device=self.device).view(-1, 4), None))
                continue
            key = (owner, prompt.text or "")
            if key not in seen:
                seen[key] = self._instances(encoding, *key)
            now = seen[key]
            if self.frozen_boxes:
                parts.append((now.boxes[now.scores > self.threshold].detach(), None))
            else:
                parts.append((now.boxes, margin(now.scores, self.threshold)))
        counts = [len(boxes) for boxes, _ in parts]
        owners = [owner for (owner, _), count in zip(asked, counts, strict=True) for _ in range(count)]
        if not owners:
            nothing = [(encoding.features[:0, :1], encoding.features[:0, 0, 0]) for _ in asked]
            size = self._masks_of(encoding, [0], encoding.features.new_zeros(1, 4))[0].shape[-2:]
            return self._empty(encoding, asked, nothing, size)
        masks, iou = self._masks_of(encoding, owners, torch.cat([boxes for boxes, _ in parts]))
        pieces = list(zip(torch.split(masks, counts), torch.split(iou, counts), strict=True))
        gated = [
            (m if bar is None else torch.minimum(m, bar[:, None, None].to(m.dtype)), i)
            for (m, i), (_, bar) in zip(pieces, parts, strict=True)
        ]
        bars = [bar is None or bool((bar.detach() > 0).any()) for _, bar in parts]
        pieces = [(m, i if there else i * 0) for (m, i), there in zip(gated, bars, strict=True)]
        return self._empty(encoding, asked, pieces, masks.shape[-2:])

    def _empty(
        self,
        encoding: Encoding,
        asked: Sequence[tuple[int, Prompt]],
        pieces: Sequence[tuple[Tensor, Tensor]],
        size: Sequence[int],
    ) -> tuple[Tensor, Tensor]:
        """Kxhxw logits and K predicted IoU of each text to one mask each; -10 everywhere where K is 0."""
        logits, iou = [], []
        for (owner, _), (m, i) in zip(asked, pieces, strict=True):
            if len(m):
                logits.append(m.amax(0))
                iou.append(i.max())
            else:  # tied to the image, so that a gradient exists and is zero
                nothing = encoding.features[owner].sum() * 0
                logits.append(nothing - MASK_LOGIT + encoding.features.new_zeros(tuple(size)))
                iou.append(nothing)
        return torch.stack(logits)[:, None], torch.stack(iou)[:, None]

    def _masks_of(self, encoding: Encoding, owners: Sequence[int], boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Kx4 boxes in original pixels, box k on image owners[k], to Kxhxw logits and K predicted IoU."""
        index = torch.tensor(list(owners), device=encoding.features.device)
        rows = boxes.double() if boxes.device.type != "mps" else boxes
        laid = [encoding.frames[o].coordinates(row.view(2, 2)).reshape(4) for o, row in zip(owners, rows, strict=True)]
        low, iou = self.inner._decode_group(
            encoding.features.index_select(0, index),
            tuple(e.index_select(0, index) for e in encoding.extra),
            ModelPrompts(
                boxes=torch.stack(laid)[:, None],
                owners=tuple(owners),
                frames=tuple(encoding.frames[o] for o in owners),
            ),
            multimask=False,
        )
        return low[:, 0], iou[:, 0]

    @torch.no_grad()
    def settle(self, images: Images, prompts: Sequence[Sequence[Prompt]]) -> Sequence[Sequence[Prompt]]:
        """With frozen boxes: the texts with what the detector finds on these images."""
        if not self.frozen_boxes:
            return prompts
        encoding = pipeline.encode(self, images, exact=True)
        return [[self._settled(encoding, owner, p) for p in ps] for owner, ps in enumerate(prompts)]

    def _settled(self, encoding: Encoding, owner: int, prompt: Prompt) -> Prompt:
        if prompt.text is None or prompt.found is not None:
            return prompt
        now = self._instances(encoding, owner, prompt.text)
        rows = now.boxes[now.scores > self.threshold].tolist()
        return replace(prompt, found=tuple(cast(Box, tuple(row)) for row in rows))

    def forms(self) -> Mapping[str, Segmenter]:
        """Both ways over the same networks, whichever this one is."""
        plain, frozen = copy(self), copy(self)
        plain.frozen_boxes, frozen.frozen_boxes = False, True
        frozen.name = f"{self.name}, boxes frozen"
        return {"boxes frozen": frozen, "through the detector": plain}

    def fingerprint(self) -> str:
        """Of both networks, the threshold and the mode."""
        settings = f"{super().fingerprint()} {self.threshold!r} {self.frozen_boxes}"
        return hashlib.sha256(settings.encode()).hexdigest()[:16]


def ground(
    detector: nn.Module,
    segmenter: Segmenter,
    *,
    tokenizer: Any,
    name: str | None = None,
    box_threshold: float | None = None,
    frozen_boxes: bool = False,
) -> GroundedSegmenter:
    """A text-prompted model from a transformers detector with its tokenizer, and any Segmenter.

    box_threshold: default the published one. frozen_boxes: see the module. Raises InputError for another detector.
    """
    settings: dict[str, Any] = {"frozen_boxes": frozen_boxes}
    if box_threshold is not None:
        if not 0 < box_threshold < 1:
            raise InputError(f"A box threshold of {box_threshold:g} is no probability.", hint="Published: 0.3.")
        settings["box_threshold"] = box_threshold
    family = family_for(str(getattr(getattr(detector, "config", None), "model_type", type(detector).__name__)))
    model = GroundedModel(detector, segmenter.model, tokenizer=tokenizer, family=family.family, settings=settings)
    return family(model, name=name or f"{family.family}+{segmenter.name}", inner=segmenter)


def family_for(detector_type: str) -> type[GroundedSegmenter]:
    """The family for a detector's `model_type`. Raises InputError."""
    families = [e.obj for e in registry.entries("model") if issubclass(e.obj, GroundedSegmenter)]
    for family in families:
        if family.detector_type == detector_type:
            return cast(type[GroundedSegmenter], family)
    known = ", ".join(f.detector_type for f in families)
    raise InputError(f"'{detector_type}' is no detector that takes a text here.", hint=f"Known detectors: {known}.")


def _family_of(network: nn.Module) -> type[TransformersSegmenter]:
    for entry in registry.entries("model"):
        if type(network).__name__ in getattr(entry.obj, "classes", ()) and not issubclass(entry.obj, GroundedSegmenter):
            return cast(type[TransformersSegmenter], entry.obj)
    raise InputError(f"A {type(network).__name__} inside a grounded model is none of the known families.")
