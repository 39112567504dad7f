"""How people are shown: initials, salted hashes, or names where the user asks for them."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from redsam.bench.files import storing, write_bytes
from redsam.privacy.people import fold

Show = Literal["initials", "hashes", "names"]


def labels(names: Sequence[str], show: Show, *, salt: bytes = b"") -> list[str]:
    """One label for each name, all different: "A. J.", "A. J. 2"; or 8 hex digits of SHA-256(salt, name)."""
    if show == "names":
        return list(names)
    made: list[str] = []
    count: dict[str, int] = {}
    for name in names:
        if show == "hashes":
            made.append(hashlib.sha256(salt + fold(name).encode()).hexdigest()[:8])
            continue
        short = " ".join(f"{word[0].upper()}." for word in name.split())
        count[short] = count.get(short, 0) + 1
        made.append(short if count[short] == 1 else f"{short} {count[short]}")
    return made


def salt_of(root: Path) -> bytes:
    """The folder's salt, drawn on first use and readable by its owner alone. Who has it and a list of names can undo
    the hashes, so it is the one file not to pass on."""
    path = root / "salt"
    if not path.exists():
        write_bytes(path, secrets.token_bytes(16))
        with storing(path):
            path.chmod(0o600)
    with storing(path):
        return path.read_bytes()
