"""GroundedModel: detector, segmenter and tokenizer as one module that can be saved, moved and loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from redsam.models.text import attach


class GroundedModel(nn.Module):
    """What a GroundedSegmenter wraps. settings: box_threshold, frozen_boxes. family: registry name."""

    def __init__(
        self,
        detector: nn.Module,
        segmenter: nn.Module,
        *,
        tokenizer: Any,
        family: str,
        settings: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.detector = detector
        self.segmenter = segmenter
        self.family = family
        self.settings = dict(settings or {})
        attach(self.detector, tokenizer)

    def cast(self, *, device: str | torch.device, dtype: torch.dtype) -> GroundedModel:
        """Move and cast. The detector stays in float32 where the segmenter goes to half precision: transformers mixes
        precisions inside it, and its boxes would be off by pixels."""
        from redsam.models.hf import cast_model

        half = dtype in (torch.float16, torch.bfloat16)
        self.detector.to(device=device, dtype=torch.float32 if half else dtype)
        cast_model(self.segmenter, device=device, dtype=dtype)
        return self

    def save_pretrained(self, folder: str | Path) -> None:
        """`detector/` with its tokenizer, `segmenter/`, and config.json with the settings."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("detector", "segmenter"):
            getattr(self, name).save_pretrained(folder / name)
        tokenizer = getattr(self.detector, "tokenizer", None)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder / "detector")
        config = {"model_type": f"redsam-{self.family}", **self.settings}
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
