"""transformers' SAM and SAM-HQ with exact attention that keeps no scores (attention.py), in place, no new weights.

A module's class is replaced, not its forward: that survives deepcopy and pickle, and names of weights stay. Models
made with attn_implementation="eager" were asked for their attention weights and are left alone.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.models.sam.modeling_sam import SamMaskDecoder, SamVisionSdpaAttention
from transformers.models.sam_hq.modeling_sam_hq import SamHQVisionSdpaAttention

from redsam.models._decoder_sam import QuickDecoder
from redsam.models.attention import Attention, attend, choose


class _Exact(nn.Module):
    """The forward that both share; the class it stands before is transformers' own."""

    kind: Attention = "auto"

    def forward(self, hidden_states: Tensor, output_attentions: bool = False) -> tuple[Tensor, None]:
        """BxHxWxC tokens to the same shape, and no attention weights, as transformers' fused path."""
        own = cast(Any, self)
        batch, height, width, channels = hidden_states.shape
        heads = own.num_attention_heads
        kind = choose(
            self.kind, device=hidden_states.device.type, dtype=hidden_states.dtype, keys=height * width,
            head=channels // heads,
        )  # fmt: skip
        if kind == "official" or not own.use_rel_pos:
            return cast(tuple[Tensor, None], cast(Any, super()).forward(hidden_states, output_attentions))
        tokens = height * width
        qkv = own.qkv(hidden_states).reshape(batch, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.reshape(3, batch * heads, tokens, -1).unbind(0)
        grid = q.view(batch * heads, height, width, -1)
        rel_h = torch.einsum("ghwc,hkc->ghwk", grid, self._table(own.rel_pos_h, height)).flatten(1, 2)
        rel_w = torch.einsum("ghwc,wkc->ghwk", grid, self._table(own.rel_pos_w, width)).flatten(1, 2)
        out = attend(kind, q, k, v, rel_h, rel_w, scale=(channels // heads) ** -0.5)
        out = out.view(batch, heads, height, width, -1).permute(0, 2, 3, 1, 4).reshape(hidden_states.shape)
        return own.proj(out), None

    def _table(self, positions: Tensor, size: int) -> Tensor:
        """size x size x d: the vector of each distance. Made on the device, so that nothing waits for it."""
        if len(positions) != 2 * size - 1:  # a grid of another size: transformers interpolates
            return cast(Tensor, cast(Any, self).get_rel_pos(size, size, positions))
        place = torch.arange(size, device=positions.device)
        return positions[place[:, None] - place[None] + size - 1]


class ExactSam(_Exact, SamVisionSdpaAttention):  # type: ignore[misc]
    """SAM's."""


class ExactSamHQ(_Exact, SamHQVisionSdpaAttention):  # type: ignore[misc]
    """SAM-HQ's."""


CLASSES: dict[type, type[nn.Module]] = {
    SamVisionSdpaAttention: ExactSam,
    SamHQVisionSdpaAttention: ExactSamHQ,
    SamMaskDecoder: QuickDecoder,
}


def replace(model: nn.Module, kind: Attention | None) -> None:
    """See `attention.use`."""
    for module in model.modules():
        if type(module) in CLASSES:
            module.__class__ = CLASSES[type(module)]
        if kind is not None and isinstance(module, _Exact | QuickDecoder):
            module.kind = kind
