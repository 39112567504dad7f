"""Images in flight: how many of one size are worked on together, fixed or found by measuring.

Fixed is the default, and 1: kernels sum another batch in another order, which can move a changed image by one level of
256, and how many fit depends on what else the machine does. So a run that is to be repeated bit for bit names its
number; "auto" is for speed, and changes results by float noise only.

Found by measuring costs no extra work. Of every kind of work (one attack with one way of prompting) and image size
(portrait and landscape cost the same) the first image is worked on alone, the next two together, and the peaks of both
give a line: peak(n) = peak(1) + (n - 1) (peak(2) - peak(1)). The next take as many images as keep that line within the
budget, rounded down to a power of two so that a slightly fuller machine finds the same number, at most LARGEST, and at
most STRIDE times as many as were measured; such a stride is measured, too, and the next one taken from there. A later
peak above the line makes the number smaller, never larger; so does running out of memory, which halves it.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field

import torch

from redsam.bench.memory import held, peak_bytes, reset_peak, room
from redsam.bench.spec import JsonDict
from redsam.errors import InputError
from redsam.heap import trim

AUTO = "auto"
LARGEST = 64  # images; no device gains from more
STRIDE = 4  # a line through one image and two is not to be trusted at 64
# Of the free memory, unless said. A CUDA allocator that is asked for too much raises, and the batch is halved; a CPU's
# never does: the kernel kills the process when its pages are touched, and nothing can be halved.
SHARE = {"cuda": 0.8, "cpu": 0.5}
_BYTES = {"GB": 2**30, "MB": 2**20}
_TYPE = "Type: --memory 0.5 or --memory 6GB"
Key = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What is asked for.

    size: so many images of one size together, None as many as memory holds. memory: of that, at most this share of what
    is free (up to 1) or this many bytes in all; None is SHARE. parts: processes that share the machine's free memory
    with this one, itself among them.
    """

    size: int | None = 1
    memory: float | None = None
    parts: int = 1

    def told(self) -> JsonDict:
        """For env.json."""
        return {"asked": self.size or AUTO} | ({"memory": self.memory} if self.memory is not None else {})


Batching = int | str | Batch  # what functions take: 4, "4", "auto"


def batch_of(asked: Batching, memory: str | float | None = None) -> Batch:
    """A batch from what somebody typed; memory: "0.5" (a share of what is free), "6GB", "500MB". Raises InputError."""
    if isinstance(asked, Batch):
        return asked
    text = str(asked).strip().lower()
    if text == AUTO:
        return Batch(size=None, memory=None if memory is None else _memory(memory))
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise InputError(f"'{asked}' is no batch size.", hint="Type: --batch-size 4 or --batch-size auto")
    if memory is not None:
        raise InputError("A fixed batch size takes the memory it takes.", hint="Type: --batch-size auto with --memory")
    return Batch(size=int(text))


def _memory(given: str | float) -> float:
    """A share up to 1, or bytes. Raises InputError."""
    text = str(given).strip().upper()
    unit = text[-2:] if text[-2:] in _BYTES else ""
    try:
        value = float(text.removesuffix(unit))
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0) or (not unit and value > 1):
        raise InputError(f"'{given}' is no share of the memory, and no amount.", hint=_TYPE)
    return max(2.0, value * _BYTES[unit]) if unit else value


@dataclass(kw_only=True, eq=False)
class Flight:
    """How many images of each size one kind of work takes at a time, as it goes on.

    Call `begin` before a group and `went` or `ran_out` after it. sizes: by image size, of a fixed batch by (). peaks:
    bytes by number of images. lines: what was concluded, for `facts`.
    """

    asked: Batch
    device: torch.device
    sizes: dict[Key, int] = field(default_factory=dict)
    peaks: dict[Key, dict[int, int]] = field(default_factory=dict)
    budgets: dict[Key, int] = field(default_factory=dict)
    halved: int = 0
    _floor: dict[Key, float] = field(default_factory=dict)
    _settled: set[Key] = field(default_factory=set)
    _striding: set[Key] = field(default_factory=set)
    _before: int | None = None
    _looks: bool = False

    def size(self, pixels: tuple[int, int]) -> int:
        """Images of this height and width to take next."""
        return self.sizes.get(self._key(pixels), self.asked.size or 1)

    @property
    def most(self) -> int:
        """The largest number for any image size so far."""
        return max(self.sizes.values(), default=self.asked.size or 1)

    def begin(self, pixels: tuple[int, int], count: int) -> None:
        """`count` images of a size are about to be worked on together."""
        key, exact = self._key(pixels), self.device.type == "cuda"
        self._looks = self.asked.size is None and key not in self._settled
        if self._looks and not exact:
            # Resident pages are those of the work only after what others left was given back, which costs time: once.
            self._looks = count not in self.peaks.get(key, {})
            if self._looks:
                trim()
        anew = reset_peak(self.device)
        self._before = held(self.device) if anew else None

    def went(self, pixels: tuple[int, int], count: int) -> None:
        """`count` images of a size were worked on together."""
        if not self._looks:
            return
        key = self._key(pixels)
        peak = peak_bytes(self.device)
        if self._before is None or peak is None:
            self._settled.add(key)
            warnings.warn("peak memory cannot be measured here: images are worked on one by one", stacklevel=2)
            return
        peaks = self.peaks.setdefault(key, {})
        peaks[count] = max(peak, peaks.get(count, 0))
        if count == 1 and self.device.type != "cuda":
            # Resident pages are noisy, as the C library keeps some for later: an image that seems to take less than
            # half of what the first one took with everything around it is taken to cost that half.
            self._floor.setdefault(key, (peak - self._before) / 2)
        self.sizes[key] = self._next(key)

    def ran_out(self, pixels: tuple[int, int], count: int) -> None:
        """Memory ran out at `count` images of a size: half of them from now on."""
        key = self._key(pixels)
        self._settled.add(key)
        self.halved += count > 1
        self.sizes[key] = max(1, count // 2)

    def facts(self) -> JsonDict:
        """What was asked, found and used, for env.json: of each image size the number of images, the budget and the
        peaks that were measured (MiB)."""
        out = self.asked.told()
        if self.asked.size is None:
            names = {key: "x".join(map(str, key)) for key in self.sizes}
            out["used"] = {names[key]: size for key, size in self.sizes.items()}
            out["budget_mb"] = {names[key]: _mb(b) for key, b in self.budgets.items()}
            out["peak_mb"] = {
                names[key]: {str(n): _mb(p) for n, p in sorted(self.peaks.get(key, {}).items())} for key in self.sizes
            }
        return out | {"halved": self.halved}

    def _key(self, pixels: tuple[int, int]) -> Key:
        return () if self.asked.size is not None else tuple(sorted(pixels))

    def _next(self, key: Key) -> int:
        """What to take after what was measured."""
        peaks, now = self.peaks[key], self.sizes.get(key, 1)
        if len(peaks) < 2:
            return 2 if 1 in peaks else now
        grows = key not in self.budgets or key in self._striding
        found = largest(peaks, budget=self._budget(key), floor=self._floor.get(key, 0.0))
        near = min(found, STRIDE * max(peaks))
        if not grows:
            return min(now, found)
        (self._striding.add if near < found else self._striding.discard)(key)
        return near

    def _budget(self, key: Key) -> int:
        """Bytes that a peak may reach, asked of the machine once for each image size."""
        if key not in self.budgets:
            there, free = held(self.device) or 0, room(self.device) or 0
            free //= self.asked.parts
            asked = self.asked.memory if self.asked.memory is not None else SHARE.get(self.device.type, SHARE["cpu"])
            self.budgets[key] = there + int(asked * free) if asked <= 1 else int(min(asked, there + free))
        return self.budgets[key]


def largest(peaks: dict[int, int], *, budget: int, floor: float = 0.0) -> int:
    """Most images, a power of two, whose peak lies within the budget by the line through the fewest and the most that
    were measured. peaks: bytes by number of images, two of them at least. floor: bytes that an image costs at least."""
    few, many = min(peaks), max(peaks)
    cost = max((peaks[many] - peaks[few]) / (many - few), floor)
    fit = few + (budget - peaks[few]) / cost if cost > 0 else LARGEST
    fit = max(1.0, min(fit, float(LARGEST)))
    return 1 << (int(fit).bit_length() - 1)


def _mb(count: int) -> float:
    return round(count / 2**20, 1)
