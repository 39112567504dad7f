"""What gpu.py compares with: seconds by the device's own clock, what the device can do, and what a step asks of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from random_sam import picture, places, with_redsam
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from redsam.models.attention import use
from redsam.models.base import Segmenter


def timed(work: Callable[[], object], device: str, repeats: int) -> float:
    """Median seconds after one pass that warms up; on CUDA by device events."""
    work()
    out = []
    for _ in range(repeats):
        if device == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            work()
            end.record()
            torch.cuda.synchronize()
            out.append(start.elapsed_time(end) / 1000)
        else:
            begun = time.perf_counter()
            work()
            out.append(time.perf_counter() - begun)
    return statistics.median(out)


def ceilings(device: str, small: bool) -> dict[str, float]:
    """Measured: TFLOP/s of a matrix product in bfloat16 and float32, GB/s of a copy (bytes read and written)."""
    n = 256 if small else 8192
    found = {}
    for name, dtype in (("bf16_tflops", torch.bfloat16), ("fp32_tflops", torch.float32)):
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        out = torch.empty(n, n, device=device, dtype=dtype)
        seconds = timed(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), device, 10)  # type: ignore[misc]
        found[name] = 2 * n**3 / seconds / 1e12
    data = torch.randn(2**20 if small else 2**29, device=device)
    target = torch.empty_like(data)
    found["copy_gbs"] = 2 * data.numel() * 4 / timed(lambda: target.copy_(data), device, 10) / 1e9
    return {key: round(value, 3) for key, value in found.items()}


def operations(segmenter: Segmenter, side: int) -> tuple[float, float]:
    """(floating-point operations, least bytes) of a step on one image with one prompt.

    Operations are counted on transformers' own path. Bytes: every weight once in each direction, and the input and the
    output of every linear layer and convolution once in each direction; scores and element-wise work count nothing.
    """
    use(segmenter.model, "official")
    carried = [0.0]
    size = torch.finfo(segmenter.dtype).bits // 8

    def note(module: nn.Module, given: Any, out: Tensor) -> None:
        carried[0] += 2 * size * (given[0].numel() + out.numel() + sum(p.numel() for p in module.parameters()))

    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    handles = [m.register_forward_hook(note) for m in segmenter.model.modules() if isinstance(m, kinds)]
    step = with_redsam(segmenter, places(1, side))
    clean = picture(side, device=str(segmenter.device))
    with FlopCounterMode(display=False) as counter:
        step(clean, clean)
    for handle in handles:
        handle.remove()
    use(segmenter.model, "auto")
    return float(counter.get_total_flops()), carried[0]
