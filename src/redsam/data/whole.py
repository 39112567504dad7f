"""Protocol `whole-image`: the foreground of an image as one question, for models of one task that hear no prompt."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from redsam.data.protocols import Mask, Protocol
from redsam.prompts import Prompt, box
from redsam.registry import register
from redsam.types import Scene


@register("protocol", "whole-image")
@dataclass(frozen=True, kw_only=True)
class WholeImage(Protocol):
    """One box around the whole image; the reference is the union of all annotated objects.

    A model that hears no prompt (sam-adapter, BadSAM) answers it with the foreground of its task.
    """

    min_area: float = 0.0

    def view(self, scene: Scene) -> Scene:
        if not len(scene.masks):
            return scene
        whole: torch.Tensor = scene.masks.any(0, keepdim=True)
        return replace(scene, masks=whole)

    def prompt(self, mask: Mask, random: torch.Generator) -> list[Prompt]:
        height, width = mask.shape
        return [box(0, 0, width, height)]
