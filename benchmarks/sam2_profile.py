"""Where one PGD step on SAM 2 (tiny, random weights) spends its time and memory on a CPU: attention against the rest.

SAM's encoder needed an attention of its own (redsam.models.attention), because its bias keeps PyTorch's fused kernels
away. SAM 2's attention has no bias, and transformers calls the fused kernel; this says what there is left to gain.
Time: share of each kind of operation in the step, forward and backward, by torch.profiler (self time, so that nothing
counts twice); shares, because seconds are the machine's. Memory: bytes that the step keeps for its backward pass,
counted as the backward pass begins, each storage once, by the module that saved them; the same number on every
machine. The last arm is the plain path, which keeps every score: what the fused kernel saves already.

    python benchmarks/sam2_profile.py --out benchmarks/results/sam2_profile.json   # one core: a minute or two, 4 GB
    python benchmarks/sam2_profile.py --side 256                                   # whether it runs
"""

from __future__ import annotations

import argparse
import json
import sys
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from random_sam import network, picture, places, with_redsam
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from redsam.models import load

# Kind of operation: parts of its name, the first match counts. transformers' attention of SAM 2 also multiplies query
# and key across heads and takes a softmax that nothing uses; the decoder's last product is the only other bmm.
KINDS = {
    "attention (fused kernel)": ("scaled_dot_product", "flash_attention"),
    "attention (scores nobody uses)": ("aten::bmm", "softmax"),
    "linear layers": ("aten::mm", "aten::addmm", "mkldnn_linear"),
    "convolutions": ("convolution",),
    "normalisation": ("layer_norm",),
    "activations": ("gelu", "relu", "sigmoid"),
    "pooling and resizing": ("pool", "upsample"),
    "copies": ("copy_", "aten::cat", "pad", "fill_", "zero_", "index", "roll"),
    "element-wise": ("aten::add", "aten::mul", "aten::div", "aten::sub", "aten::sum", "aten::mean"),
}
ATTENTION = tuple(kind for kind in KINDS if kind.startswith("attention"))
REST = "everything else"


def kind_of(operation: str) -> str:
    """The kind that an operation belongs to."""
    return next((kind for kind, parts in KINDS.items() if any(part in operation for part in parts)), REST)


def shares(found: profile) -> dict[str, float]:
    """Share of each kind in the profiled time, largest first."""
    spent: Counter[str] = Counter()
    for row in found.key_averages():
        spent[kind_of(row.key)] += row.self_cpu_time_total
    whole = sum(spent.values())
    return {kind: round(time / whole, 4) for kind, time in spent.most_common()}


class Saved:
    """A tensor that autograd keeps, and the class of the innermost module that was at work."""

    def __init__(self, tensor: Tensor, module: str) -> None:
        self.tensor, self.module = tensor, module


@contextmanager
def saving(model: nn.Module) -> Iterator[Counter[str]]:
    """Bytes that are kept when the backward pass inside begins, by module; no weights. What was saved for a result that
    nothing uses is gone by then."""
    kept: Counter[str] = Counter()
    saved: list[weakref.ref[Saved]] = []
    weights = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    stack: list[str] = []

    def enter(module: nn.Module, *_: Any) -> None:
        stack.append(type(module).__name__)

    def leave(*_: Any) -> None:
        stack.pop()

    def pack(tensor: Tensor) -> Saved:
        one = Saved(tensor.detach(), stack[-1] if stack else "outside")  # with its graph it would keep itself alive
        saved.append(weakref.ref(one))
        return one

    def unpack(one: Saved) -> Tensor:
        if not kept:
            seen = set(weights)
            for other in filter(None, (ref() for ref in saved)):
                storage = other.tensor.untyped_storage()
                if storage.data_ptr() not in seen:
                    seen.add(storage.data_ptr())
                    kept[other.module] += storage.nbytes()
        return one.tensor

    handles = [h for m in model.modules() for h in (m.register_forward_pre_hook(enter), m.register_forward_hook(leave))]
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            yield kept
    finally:
        for handle in handles:
            handle.remove()


def kept_by(model: nn.Module, side: int) -> dict[str, float]:
    """MiB that one step keeps, by module; attention is what its own lines save, without its linear layers."""
    step, clean = with_redsam(load(model, name="random-2t"), places(1, side)), picture(side)
    with saving(model) as kept:
        step(clean, clean)
    return {name: round(size / 2**20, 2) for name, size in kept.most_common()}


def of_attention(kept: dict[str, float]) -> float:
    """MiB of these that attention keeps."""
    return round(sum(size for name, size in kept.items() if name.endswith("Attention")), 2)


def main() -> int:
    """Print tables, then one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=1, help="profiled steps, after one that warms up")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = network("2t", side=args.side)
    fused = kept_by(model, args.side)  # the step that warms up
    step, clean = with_redsam(load(model, name="random-2t"), places(1, args.side)), picture(args.side)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(args.steps):
            step(clean, clean)
    model.set_attn_implementation("eager")  # type: ignore[operator]
    plain = kept_by(model, args.side)
    time, memory = shares(found), sum(fused.values())
    part = round(sum(time.get(kind, 0.0) for kind in ATTENTION), 4)
    told = {
        "command": "python benchmarks/sam2_profile.py", "model": "SAM 2 tiny, random weights", "side": args.side,
        "torch": torch.__version__, "threads": args.threads, "steps": args.steps,
        "time_shares": time, "attention_time_share": part, "time_if_attention_were_free": round(1 - part, 4),
        "kept_mb": round(memory, 1), "kept_by_attention_mb": of_attention(fused),
        "attention_memory_share": round(of_attention(fused) / memory, 4),
        "plain_path": {"kept_mb": round(sum(plain.values()), 1), "kept_by_attention_mb": of_attention(plain)},
        "kept_by_module_mb": dict(list(fused.items())[:8]),
    }  # fmt: skip
    for kind, share in time.items():
        print(f"{share:7.1%}  {kind}")
    print(f"kept for the backward pass: {memory:.0f} MiB, {told['attention_memory_share']:.1%} of it by attention")
    text = json.dumps(told, indent=1)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
