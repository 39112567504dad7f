"""Seeds derived from names, so that a draw belongs to its sample and not to the order in which samples were run.

No global random state anywhere: whoever draws makes a generator from what the draw is for.
"""

from __future__ import annotations

import hashlib
import json

import torch

Part = str | int | float | bool | None


def stable_seed(*parts: Part) -> int:
    """63-bit seed of the parts, the same on every machine and in every process; (1, "23") and ("1", "23") differ.

    First 8 bytes of SHA-256 over the parts as JSON, top bit dropped so that it fits a signed 64-bit integer.
    """
    digest = hashlib.sha256(json.dumps(parts, ensure_ascii=True, allow_nan=False).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*parts: Part) -> torch.Generator:
    """A CPU generator seeded with `stable_seed(*parts)`; draw on the CPU and move, so that devices agree."""
    return torch.Generator().manual_seed(stable_seed(*parts))
