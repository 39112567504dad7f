"""What one visitor has chosen, and that each has one job at a time."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from redsam.data import read_image
from redsam.data.demo import demo_root
from redsam.errors import InputError
from redsam.prompts import Prompt, box, point
from redsam.registry import unknown
from redsam.types import from_uint8, to_uint8

MAX_BYTES = 10 * 2**20  # of an upload
MAX_SIDE = 640  # larger photographs are reduced: an attack costs time by the pixel
MAX_VISITORS = 100
MIN_BOX = 2.0  # pixels a side


def photographs() -> dict[str, Path]:
    """The bundled photographs by name."""
    return {path.stem: path for path in sorted(demo_root().glob("*.jpg"))}


class Session:
    """One visitor. image: float32 3xHxW in [0, 1], 8-bit lattice, or None before one was chosen. The rest of the
    interface is a handful of verbs; each raises InputError with one line for the page."""

    def __init__(self) -> None:
        self.name = ""
        self.image: Tensor | None = None
        self.prompt: Prompt | None = None
        self.note = ""
        self._stop: threading.Event | None = None
        self._lock = threading.Lock()

    def choose(self, name: str) -> None:
        """Take a bundled photograph."""
        known = photographs()
        if name not in known:
            raise unknown("photograph", name, sorted(known))
        self._show(name, read_image(known[name]))

    def upload(self, path: Path | str) -> None:
        """Take a file of the visitor's; at most 10 MB, reduced to 640 pixels on its longer side."""
        path = Path(path)
        if path.exists() and path.stat().st_size > MAX_BYTES:
            raise InputError(f"The file has more than {MAX_BYTES // 2**20} MB.", hint="Choose a smaller one.")
        try:
            image = read_image(path)
        except InputError as error:  # its path is the server's business
            message = error.message.replace(str(path), "The file").replace("The file: ", "The file is no photograph: ")
            raise InputError(message, hint=error.hint.replace(str(path), "it")) from None
        self._show(path.stem[:40], image)

    def place(self, where: Mapping[str, Any]) -> None:
        """Take what the pointer did: {x, y} is a click, {x0, y0, x1, y1} a box in any direction."""
        try:
            if "x0" in where:
                x0, y0, x1, y1 = (float(where[key]) for key in ("x0", "y0", "x1", "y1"))
                self._ask(box(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)))
            else:
                self._ask(point(float(where["x"]), float(where["y"])))
        except (KeyError, TypeError, ValueError):
            raise InputError("That is no place in the photograph.", hint="Click it, or drag a box.") from None

    def write(self, text: str) -> None:
        """Take a prompt that was typed: `X,Y` or `X0,Y0,X1,Y1`."""
        parts = [p for p in re.split(r"[\s,;]+", text.strip()) if p]
        if len(parts) not in (2, 4):
            raise InputError(
                f"'{text.strip()[:40]}' is no prompt.", hint="Type X,Y for a point, X0,Y0,X1,Y1 for a box."
            )
        self.place(dict(zip(("x", "y") if len(parts) == 2 else ("x0", "y0", "x1", "y1"), parts, strict=True)))

    @property
    def written(self) -> str:
        """The prompt as `write` takes it."""
        if self.prompt is None:
            return ""
        numbers = self.prompt.box or (self.prompt.points[0] if self.prompt.points else ())
        return ",".join(f"{n:.0f}" for n in numbers)

    def ready(self) -> tuple[Tensor, Prompt]:
        """Photograph and prompt, when both are there."""
        if self.image is None:
            raise InputError("There is no photograph yet.", hint="Choose one, or upload your own.")
        if self.prompt is None:
            raise InputError("Nothing is selected yet.", hint="Click an object, or drag a box around it.")
        return self.image, self.prompt

    def begin(self) -> threading.Event:
        """Start a job; the event says that it shall stop. One at a time."""
        with self._lock:
            if self._stop is not None:
                raise InputError("An attack of yours is running.", hint="Stop it first.")
            self._stop = threading.Event()
            return self._stop

    def end(self) -> None:
        """The job is over."""
        with self._lock:
            self._stop = None

    def stop(self) -> bool:
        """Ask the job to stop; whether there was one."""
        with self._lock:
            if self._stop is None:
                return False
            self._stop.set()
            return True

    def _show(self, name: str, image: Tensor) -> None:
        self.stop()  # an attack on the photograph before is of no use any more
        height, width = image.shape[1:]
        self.image, self.name, self.prompt, self.note = fit(image), name, None, ""
        if self.image.shape != image.shape:
            self.note = f"Reduced from {width} × {height} to {self.image.shape[2]} × {self.image.shape[1]} pixels."

    def _ask(self, prompt: Prompt) -> None:
        if self.image is None:
            raise InputError("There is no photograph yet.", hint="Choose one, or upload your own.")
        if prompt.box and min(prompt.box[2] - prompt.box[0], prompt.box[3] - prompt.box[1]) < MIN_BOX:
            raise InputError("The box is too narrow.", hint="Drag it around the object.")
        prompt.check(*self.image.shape[1:])
        self.prompt = prompt


class Visitors:
    """A session for each visitor, by a key that only the server makes; the longest unseen is forgotten first."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, key: str) -> Session:
        """The visitor's session, new on the first call."""
        with self._lock:
            session = self._known.setdefault(key, Session())
            self._known.move_to_end(key)
            while len(self._known) > MAX_VISITORS:
                self._known.popitem(last=False)[1].stop()
            return session

    def forget(self, key: str) -> None:
        """The visitor has left: stop what runs."""
        with self._lock:
            session = self._known.pop(key, None)
        if session is not None:
            session.stop()


def fit(image: Tensor, side: int = MAX_SIDE) -> Tensor:
    """The image itself, or reduced so that no side is longer; float32 3xHxW on the 8-bit lattice."""
    height, width = image.shape[1:]
    scale = side / max(height, width)
    if scale >= 1:
        return image
    size = (max(2, round(width * scale)), max(2, round(height * scale)))
    pixels = Image.fromarray(to_uint8(image).permute(1, 2, 0).numpy()).resize(size, Image.Resampling.LANCZOS)
    return from_uint8(torch.from_numpy(np.array(pixels)).permute(2, 0, 1).contiguous())
