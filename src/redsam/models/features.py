"""Intermediate features: what the encoder's blocks make of an image, taken in the same pass as the final embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from redsam.errors import InputError
from redsam.models.base import Segmenter
from redsam.models.values import Encoding, Images


def middle(count: int) -> tuple[int, ...]:
    """Blocks 4 to 7 of a ViT-B's 12, where UAD, PATA and RGA's baselines look, as the same share of `count` blocks."""
    first = count * 4 // 12
    return tuple(range(first, max(first + 1, count * 8 // 12)))


def tap(segmenter: Segmenter, images: Images, layers: Sequence[int] | None = None) -> tuple[Encoding, list[Tensor]]:
    """Encode images and also return the outputs of these encoder blocks (default `middle`), batch first, with
    gradients to the images. Raises InputError for a family without named blocks or a block that is not there."""
    stages = segmenter.stages()
    chosen = middle(len(stages)) if layers is None else tuple(layers)
    if any(not 0 <= i < len(stages) for i in chosen):
        raise InputError(f"{segmenter.name} has encoder blocks 0 to {len(stages) - 1}, not {list(chosen)}.")
    seen: dict[int, Tensor] = {}

    def remember(index: int) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            seen[index] = output if isinstance(output, Tensor) else output[0]

        return hook

    handles = [stages[i].register_forward_hook(remember(i)) for i in chosen]
    try:
        encoding = segmenter.encode(images)
    finally:
        for handle in handles:
            handle.remove()
    return encoding, [seen[i] for i in chosen]
