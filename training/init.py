"""Initialisation that lets a small SAM learn from few photographs. Each step says what it repairs.

transformers draws every weight with std 0.02 (and SAM's vision tower with 1e-10) because it always loads published
weights; Meta trained from PyTorch's own initialisation and a random position code of scale 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from redsam.models import initialise as start


def initialise(model: nn.Module, *, pixels: Tensor, seed: int) -> None:
    """Re-initialise in place. pixels: a Bx3xSxS batch of normalised photographs, for the patch embedding.

    The library's own start comes first. It also gives the image grid and the prompts one position code: a fresh
    Sam2Model draws two, and then no prompt says where it is.
    """
    start(model, seed=seed)
    for name, parameter in model.named_parameters():
        if name.endswith("positional_embedding"):
            parameter.requires_grad_(False)  # a buffer in Meta's code
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in model.modules():
            kind = type(module).__name__
            if kind == "SamVisionEncoder":
                _sam_encoder(module, pixels)
            elif kind == "Sam2HieraDetModel":
                _hiera(module)
            elif (
                kind == "SamVisionAttention"
                or kind == "Sam2MultiScaleAttention"
                and module.qkv.in_features * 3 == module.qkv.out_features
            ):
                mimetic(module.qkv, module.proj, heads=module.num_attention_heads)


def _sam_encoder(encoder: nn.Module, pixels: Tensor) -> None:
    """Whitening patches, a sinusoidal absolute position, calm residual branches."""
    whiten(encoder.patch_embed.projection, pixels)
    height, width, dim = encoder.pos_embed.shape[1:]
    encoder.pos_embed.data.copy_(sinusoid(height, width, dim)[None] * 0.5)


def _hiera(model: nn.Module) -> None:
    """Hiera adds a background and a window position code, both zero in transformers: start them as sinusoids."""
    _, dim, height, width = model.pos_embed.shape
    model.pos_embed.data.copy_(sinusoid(height, width, dim).permute(2, 0, 1)[None] * 0.5)


def whiten(conv: nn.Conv2d | nn.modules.conv.Conv2d, pixels: Tensor) -> None:
    """Patch embedding = principal components of photograph patches, scaled to unit variance (Coates & Ng 2012): every
    frequency starts audible, where a random projection lets the mean colour drown the edges."""
    step = int(conv.kernel_size[0])
    patches = torch.nn.functional.unfold(pixels, step, stride=step).transpose(1, 2).reshape(-1, 3 * step * step)
    patches = patches[patches.abs().sum(1) > 0].double()
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    values, vectors = values.flip(0), vectors.flip(1)
    rows = min(conv.out_channels, values.numel())
    basis = (vectors[:, :rows] / (values[:rows] + 1e-3 * values[0]).sqrt()).T
    weight = torch.zeros(conv.out_channels, basis.shape[1], dtype=torch.float64)
    weight[:rows] = basis
    conv.weight.data.copy_(weight.reshape(conv.weight.shape))
    conv.bias.data.copy_(-(weight @ mean))


def mimetic(qkv: nn.Linear, proj: nn.Linear, *, heads: int) -> None:
    """Queries that look for keys like themselves, values that are passed on with a minus: what trained transformers
    converge to (Trockman & Kolter, ICML 2023: W_q W_k^T ~ 0.7 Z + 0.7 I, W_v W_o ~ 0.4 Z - 0.4 I)."""
    dim = qkv.in_features
    head = dim // heads
    weight = qkv.weight.data
    for h in range(heads):
        target = 0.7 * torch.randn(dim, dim) / math.sqrt(dim) + 0.7 * torch.eye(dim)
        u, s, v = torch.linalg.svd(target)
        root = s[:head].sqrt()
        weight[h * head : (h + 1) * head] = (u[:, :head] * root).T
        weight[dim + h * head : dim + (h + 1) * head] = v[:head] * root[:, None]
    u, s, v = torch.linalg.svd(0.4 * torch.randn(dim, dim) / math.sqrt(dim) - 0.4 * torch.eye(dim))
    weight[2 * dim :] = s.sqrt()[:, None] * v
    proj.weight.data.copy_(u * s.sqrt())
    qkv.bias.data.zero_()
    proj.bias.data.zero_()


def sinusoid(height: int, width: int, dim: int) -> Tensor:
    """height x width x dim sine and cosine of both coordinates (MoCo v3's 2-D code)."""
    quarter = dim // 4
    omega = 1.0 / (100.0 ** (torch.arange(quarter) / quarter))
    y = torch.arange(height)[:, None] * omega
    x = torch.arange(width)[:, None] * omega
    rows = torch.cat([y.sin(), y.cos()], 1)[:, None].expand(height, width, 2 * quarter)
    columns = torch.cat([x.sin(), x.cos()], 1)[None].expand(height, width, 2 * quarter)
    code = torch.cat([rows, columns], -1)
    return torch.nn.functional.pad(code, (0, dim - code.shape[-1]))
