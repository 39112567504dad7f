"""From a visitor's choice to what the page shows: one attack, or the same against two defences beside each other."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from redsam.app.live import WAIT, Moment, budget, live, recipe
from redsam.app.session import Session
from redsam.data import write_png
from redsam.defenses import load
from redsam.errors import InputError, RedsamError
from redsam.models.base import Segmenter

NONE = "none"
DEFENSES = (NONE, "jpeg:quality=50", "bit-depth", "median", "gaussian", "bilateral", "tv", "noise", "resize-pad")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the controls say. eps in grey levels. other: the defence beside it, None for one lane."""

    model: str
    attack: str = "pgd"
    eps: float = 8
    steps: int = 10
    defense: str = NONE
    other: str | None = None


@dataclass(frozen=True, kw_only=True)
class Screen:
    """What the page shows now. lanes: (defence, moment) pairs. line: one sentence; wrong: it is an error. files: of
    finished lanes, (png, json) each. running: whether more screens come."""

    lanes: tuple[tuple[str, Moment], ...] = ()
    line: str = ""
    wrong: bool = False
    files: tuple[tuple[Path, Path] | None, ...] = ()
    running: bool = True


class Stage:
    """The server's side of the play: which models may be asked, and how many attacks run at once."""

    def __init__(self, *, models: Sequence[str], device: str = "cpu", jobs: int = 1) -> None:
        self.models = tuple(models)
        self._device = device
        self._free = threading.Semaphore(jobs)
        self._segmenter = lru_cache(maxsize=8)(self._load)
        self._loading = threading.Lock()

    def segmenter(self, model: str, defense: str) -> Segmenter:
        """A model that is offered, behind a defence that is offered; loaded once."""
        if model not in self.models or defense not in DEFENSES:
            raise InputError(f"'{model}' behind '{defense}' is not offered here.", hint="Choose from the lists.")
        with self._loading:
            return self._segmenter(model, defense)

    def play(self, session: Session, choice: Choice, out: Path) -> Iterator[Screen]:
        """Screens from the first to the last; never raises for what a visitor did. out: an own folder for files."""
        try:
            image, prompt = session.ready()
            attack, threat = recipe(choice.attack, choice.steps), budget(choice.eps)
            stop = session.begin()
        except RedsamError as error:
            yield Screen(line=str(error), wrong=True, running=False)
            return
        shown = Screen(line="Loading the model")
        streams: list[Iterator[Moment]] = []
        held = False
        try:
            while not (held := self._free.acquire(timeout=WAIT)) and not stop.is_set():
                yield Screen(line="Another visitor's attack is running; yours comes next")
            yield shown
            names = [choice.defense, *([choice.other] if choice.other is not None else [])]
            streams = [
                live(self.segmenter(choice.model, name), image, prompt, attack=attack, threat=threat, stop=lane)
                for name, lane in ((name, _Either(stop)) for name in names)
            ]
            for moments in _abreast(streams):
                shown = Screen(lanes=tuple(zip(names, moments, strict=True)), line=_progress(choice, moments))
                yield shown
            yield self._last(session, choice, shown, stop, out)
        except RedsamError as error:
            yield Screen(lanes=shown.lanes, line=str(error), wrong=True, running=False)
        except Exception as error:  # one line for the visitor; whoever serves sees the rest in the log
            line = f"That went wrong inside redsam ({type(error).__name__}). Try another photograph or model."
            if isinstance(error, MemoryError | torch.OutOfMemoryError):
                line = "There is not enough memory for this photograph. Try a smaller one."
            yield Screen(lanes=shown.lanes, line=line, wrong=True, running=False)
        finally:
            for stream in streams:
                stream.close()  # type: ignore[attr-defined]
            if held:
                self._free.release()
            session.end()

    def _last(self, session: Session, choice: Choice, shown: Screen, stop: threading.Event, out: Path) -> Screen:
        if stop.is_set():
            step = max((m.step for _, m in shown.lanes), default=0)
            return Screen(lanes=shown.lanes, line=f"Stopped after {step} steps.", running=False)
        files = tuple(_save(session, defense, moment, out) for defense, moment in shown.lanes)
        return Screen(lanes=shown.lanes, line=verdict(choice, shown.lanes), files=files, running=False)

    def _load(self, model: str, defense: str) -> Segmenter:
        return load(model, defenses=() if defense == NONE else (defense,), device=self._device)


class _Either(threading.Event):
    """Set by itself (its own lane is over) or by the visitor (all lanes are)."""

    def __init__(self, visitor: threading.Event) -> None:
        super().__init__()
        self._visitor = visitor

    def is_set(self) -> bool:
        return super().is_set() or self._visitor.is_set()


def verdict(choice: Choice, lanes: Sequence[tuple[str, Moment]]) -> str:
    """What came out, in one sentence."""
    parts = []
    for defense, moment in lanes:
        name = choice.model if defense == NONE else f"{choice.model} behind {defense}"
        parts.append(f"{name} keeps IoU {moment.iou:.2f} with its mask before")
    return f"After {choice.attack} at {choice.eps:g}/255 " + "; ".join(parts) + "."


def _progress(choice: Choice, moments: Sequence[Moment]) -> str:
    steps = max(m.steps for m in moments)
    return f"{choice.attack}, step {max(m.step for m in moments)} of {steps}" if steps else "The attack begins"


def _abreast(streams: Sequence[Iterator[Moment]]) -> Iterator[list[Moment]]:
    """Moments of all streams side by side; one that has ended keeps its last. Streams start together."""
    current = [next(stream) for stream in streams]
    yield list(current)
    running = [True] * len(streams)
    while any(running):
        for i, stream in enumerate(streams):
            if running[i]:
                found = next(stream, None)
                if found is None:
                    running[i] = False
                else:
                    current[i] = found
                    yield list(current)


def _save(session: Session, defense: str, moment: Moment, out: Path) -> tuple[Path, Path] | None:
    """The delivered image, losslessly, and what was done."""
    if moment.result is None:
        return None
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in f"{session.name}-{defense}")
    png, told = out / f"{name}.png", out / f"{name}.json"
    write_png(png, torch.from_numpy(moment.adversarial).permute(2, 0, 1))
    document: dict[str, Any] = {"image": session.name, **moment.result, "file": png.name}
    told.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return png, told
