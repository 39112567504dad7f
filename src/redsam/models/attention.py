"""Exact attention with decomposed relative positions (Li et al., "MViTv2", 2022, eq. 5), as SAM's encoder has it.

    softmax(scale * q k^T + rel_h[query, row of key] + rel_w[query, column of key]) v

The bias depends on the query, so it needs a gradient, PyTorch's fused kernels refuse it as a mask, and the plain path
keeps every score for the backward pass: 0.8 GB for each global block of SAM-B, per image. Here are three ways around
that; all compute the same numbers up to the order of sums, none approximates.

- folded: softmax((scale q, rel_h, rel_w) . (k, one-hot row, one-hot column)) v, the bias as part of a longer inner
  product, for a fused kernel without a mask.
- blocked: a block of scores at a time that fits the cache, made anew in the backward pass (Dao et al.,
  "FlashAttention", 2022) from plain matrix products. Three times fewer operations than folded where the grid is as
  wide as the head.
- flex: PyTorch's FlexAttention, which compiles the bias into the kernel; CUDA only.

SAM 2 needs none of this. Its attention has no such bias, so transformers calls the fused kernel, which keeps no scores.
Of one step on SAM 2 tiny at 1024 x 1024 on a CPU (benchmarks/sam2_profile.py, two runs on a busy machine) that kernel
takes 26 and 35 % of the time, linear layers 32 and 34 %; 2 % goes into scores that transformers computes and drops. Of
1,552 MiB kept for the backward pass 683 are attention's, its queries, keys, values and outputs; the plain path would
keep 2,470 in all. `blocked` without a bias takes 1.5 times the kernel's processor time on the global blocks (4,096
tokens, head size 96) and 0.9 to 1.4 times on the windows. So a way of redsam's own could gain 2 %: it does not pay.

q, k, v: GxNxd for G images x heads and N = H W tokens, row by row. rel_h: GxNxH, rel_w: GxNxW, from the unscaled query.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from redsam.errors import InputError

# official: transformers' own code. auto: what `choose` says for the device, the dtype and the size at hand.
Attention = Literal["auto", "official", "folded", "blocked", "flex"]
KINDS: tuple[str, ...] = get_args(Attention)
# Scores that are worked on at a time: 2 MiB in float32, which stays in the cache of a core and its share of the last
# level. From 2**17 to 2**20 the time on a Xeon of 2.5 GHz is the same within its noise; at 2**22 it is a fifth longer.
BLOCK = 2**19
# Below this head size, and below this number of keys, the work is too small for any way to be worth a change.
HEAD, KEYS, MANY = 64, 144, 1024

_official: ContextVar[bool] = ContextVar("redsam_official_attention", default=False)


@contextmanager
def officially(on: bool) -> Iterator[None]:
    """Inside, when `on`, attention is transformers' own bit for bit: what is reported as a model's answer."""
    token = _official.set(on or _official.get())
    try:
        yield
    finally:
        _official.reset(token)


# A constant to `torch.compile`: a compiled encoder is never asked for an exact answer.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def official() -> bool:
    """Whether an exact answer is wanted: inside of `officially`."""
    return _official.get()


def choose(kind: Attention, *, device: str, dtype: torch.dtype, keys: int, head: int) -> Attention:
    """The way to compute: `kind` unless it is "auto" or an exact answer is wanted.

    keys: tokens that attend to each other, H W. head: head size d. On a CPU, measured with one thread, time of forward
    and backward of float32 against transformers' (benchmarks/attention.py): 64 x 64 tokens of 64 (SAM's global blocks)
    blocked 0.6, folded 0.9; 14 x 14 of 64 (its windows) folded 0.9, blocked 1.05; 16 x 16 of 32 (lab-b) all 1.0. On
    CUDA in half precision the fused kernel wants head + H + W <= 256, which all SAMs keep; in float32 and float64
    there it is chosen for its memory.
    """
    if official():
        return "official"
    if kind != "auto":
        return kind
    if head < HEAD or keys < KEYS:
        return "official"
    if device == "cuda":
        return "blocked" if dtype == torch.float64 else "folded"
    if keys < MANY:
        return "folded"
    return "blocked"


def use(model: nn.Module, kind: Attention | None = None) -> None:
    """Let every attention of SAM's kind inside `model` compute this way, in place; None: as it was told before, "auto"
    at first. No weight and no name of one changes."""
    if kind is not None and kind not in KINDS:
        raise InputError(f"There is no attention '{kind}'.", hint=f"Known: {', '.join(KINDS)}.")
    if any("VisionSdpaAttention" in base.__name__ for m in model.modules() for base in type(m).__mro__):
        from redsam.models._attention_sam import replace  # imports two of transformers' models

        replace(model, kind)


def attend(kind: Attention, q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, *, scale: float) -> Tensor:
    """GxNxd. InputError for a kind that computes nothing by itself."""
    ways: dict[str, Callable[..., Tensor]] = {"folded": folded, "blocked": blocked, "flex": flexible}
    if kind not in ways:
        raise InputError(f"There is no attention '{kind}' to compute.", hint=f"Known: {', '.join(ways)}.")
    return ways[kind](q, k, v, rel_h, rel_w, scale=scale)


# --- folded --------------------------------------------------------------------------------------------------------
def folded(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, *, scale: float) -> Tensor:
    """The bias as part of the inner product. The value is padded with zeros to the key's width where the fused kernel
    asks for one width (CPU, and half precision on CUDA)."""
    height, width = rel_h.shape[-1], rel_w.shape[-1]
    codes = grid_codes(height, width, device=k.device, dtype=k.dtype).expand(len(k), -1, -1)
    query = torch.cat([q * scale, rel_h.to(q.dtype), rel_w.to(q.dtype)], -1)
    key = torch.cat([k, codes], -1)
    narrow = q.device.type == "cuda" and q.dtype == torch.float32
    value = v if narrow else F.pad(v, (0, height + width))
    # G as the heads of one image: fused kernels take four dimensions.
    out = F.scaled_dot_product_attention(query[None], key[None], value[None], scale=1.0)[0]
    return out[..., : v.shape[-1]]


@lru_cache(maxsize=32)
def grid_codes(height: int, width: int, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """HWx(H+W): for each token one at its row, one at its column."""
    with torch.inference_mode(False):
        token = torch.arange(height * width, device=device)
        return torch.cat([F.one_hot(token // width, height), F.one_hot(token % width, width)], -1).to(dtype)


# --- blocked -------------------------------------------------------------------------------------------------------
# `torch.compile` would unroll its loop.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def blocked(
    q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, *, scale: float, block: int = BLOCK
) -> Tensor:
    """A block of scores at a time; what is kept for the backward pass is as long as the tokens, not their square.
    Half precision is computed in float32. Differentiable once."""
    dtype = v.dtype
    if dtype not in (torch.float32, torch.float64):
        q, k, v = q.float(), k.float(), v.float()
    rel_h, rel_w = rel_h.to(q.dtype), rel_w.to(q.dtype)
    return cast(Tensor, _Blocked.apply(q, k, v, rel_h, rel_w, scale, block)).to(dtype)  # type: ignore[no-untyped-call]


def _blocks(groups: int, tokens: int, block: int) -> Iterator[tuple[slice, slice]]:
    """(groups, query rows) whose scores are at most `block`, and at least one row."""
    rows = max(1, min(tokens, block // tokens))
    together = max(1, block // (tokens * tokens)) if rows == tokens else 1
    for g in range(0, groups, together):
        for r in range(0, tokens, rows):
            yield slice(g, min(g + together, groups)), slice(r, min(r + rows, tokens))


class _Scores:
    """Scores of one block after the other, in one piece of memory."""

    def __init__(self, q: Tensor, k: Tensor, rel_h: Tensor, rel_w: Tensor, scale: float, block: int) -> None:
        self.q, self.k, self.rel_h, self.rel_w, self.scale = q, k, rel_h, rel_w, scale
        self.memory = self.room(block)

    def room(self, block: int) -> Tensor:
        """Memory for the largest block."""
        size = self.q.shape[1]
        return self.q.new_empty(max((g.stop - g.start) * (r.stop - r.start) * size for g, r in self.list(block)))

    def list(self, block: int) -> list[tuple[slice, slice]]:
        return list(_blocks(len(self.q), self.q.shape[1], block))

    def of(self, groups: slice, rows: slice, minus: Tensor | None = None) -> Tensor:
        """gxrxN scores of these rows with all keys; `minus` GxNx1 is taken off."""
        shape = (groups.stop - groups.start, rows.stop - rows.start, self.k.shape[1])
        out = self.memory[: math.prod(shape)].view(shape)
        # beta 0: what `out` held is not read.
        torch.baddbmm(out, self.q[groups, rows], self.k[groups].mT, beta=0, alpha=self.scale, out=out)
        grid = out.view(*shape[:2], self.rel_h.shape[-1], self.rel_w.shape[-1])
        high = self.rel_h[groups, rows]
        grid += (high if minus is None else high - minus[groups, rows])[..., None]
        grid += self.rel_w[groups, rows][:, :, None]
        return out


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, scale: float, block: int
    ) -> Tensor:
        with torch.autocast(q.device.type, enabled=False):
            scores = _Scores(q, k, rel_h, rel_w, scale, block)
            out, total = torch.empty_like(v), q.new_empty(*q.shape[:2], 1)
            for groups, rows in scores.list(block):
                s = scores.of(groups, rows)
                top = s.amax(-1, keepdim=True)
                s.sub_(top).exp_()
                sums = s.sum(-1, keepdim=True)
                out[groups, rows] = torch.bmm(s, v[groups]).div_(sums)
                total[groups, rows] = sums.log_().add_(top)
        ctx.save_for_backward(q, k, v, rel_h, rel_w, out, total)
        ctx.settings = scale, block
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, rel_h, rel_w, out, total = ctx.saved_tensors
        scale, block = ctx.settings
        with torch.autocast(q.device.type, enabled=False):
            scores = _Scores(q, k, rel_h, rel_w, scale, block)
            memory = torch.empty_like(scores.memory)
            slope = slope.contiguous()
            # Sum over keys of probability times its slope: what softmax takes off (FlashAttention, eq. 4).
            mean = (slope * out).sum(-1, keepdim=True)
            to_q, to_h, to_w = torch.empty_like(q), torch.empty_like(rel_h), torch.empty_like(rel_w)
            to_k, to_v = torch.zeros_like(k), torch.zeros_like(v)
            for groups, rows in scores.list(block):
                p = scores.of(groups, rows, minus=total).exp_()
                mine = slope[groups, rows]
                s = memory[: p.numel()].view(p.shape)
                torch.bmm(mine, v[groups].mT, out=s)
                s.sub_(mean[groups, rows]).mul_(p)
                to_v[groups].baddbmm_(p.mT, mine)
                to_k[groups].baddbmm_(s.mT, q[groups, rows], alpha=scale)
                to_q[groups, rows] = torch.bmm(s, k[groups]).mul_(scale)
                grid = s.view(*s.shape[:2], rel_h.shape[-1], rel_w.shape[-1])
                to_h[groups, rows] = grid.sum(-1)
                to_w[groups, rows] = grid.sum(-2)
        return to_q, to_k, to_v, to_h, to_w, None, None


# --- flex ----------------------------------------------------------------------------------------------------------
def flexible(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, *, scale: float) -> Tensor:
    """FlexAttention: compiled on CUDA, slow and hungry elsewhere (there for tests)."""
    width = rel_w.shape[-1]

    def biased(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score + rel_h[head, query, key // width] + rel_w[head, query, key % width]

    out = _flex(q.device.type == "cuda")(q[None], k[None], v[None], score_mod=biased, scale=scale)
    return cast(Tensor, out)[0]


@lru_cache(maxsize=2)
def _flex(compiled: bool) -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return cast(Callable[..., Any], torch.compile(flex_attention) if compiled else flex_attention)
