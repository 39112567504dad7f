"""One attack as a stream: a moment for every step, while it runs in a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from redsam import __version__, registry
from redsam.attacks.base import Attack, AttackResult
from redsam.attacks.watch import Look, watching
from redsam.errors import InputError
from redsam.metrics import iou, psnr
from redsam.models.base import Segmenter
from redsam.prompts import Prompt
from redsam.threat import Threat
from redsam.types import from_uint8, to_uint8

# Those that show every step, need nothing but a model, and take one gradient a step.
ATTACKS = ("pgd", "fgsm", "bim", "mifgsm", "apgd", "segpgd", "attack-sam")
MAX_STEPS = 40
MAX_EPS = 32  # grey levels
WAIT = 0.2  # seconds between two looks at whether to stop


@dataclass(frozen=True, kw_only=True, eq=False)
class Moment:
    """Where an attack stands. step of steps. clean, adversarial: uint8 HxWx3. before, after: bool HxW masks. curve:
    (step, IoU of the mask with the clean one) so far. result: JSON of the finished attack, None before; png: the
    delivered image is `adversarial` then."""

    step: int
    steps: int
    clean: NDArray[np.uint8]
    adversarial: NDArray[np.uint8]
    before: NDArray[np.bool_]
    after: NDArray[np.bool_]
    curve: tuple[tuple[int, float], ...]
    result: dict[str, Any] | None = None

    @property
    def iou(self) -> float:
        """Now."""
        return self.curve[-1][1]


class _Stopped(Exception):
    """Raised inside the attack by whoever watches it."""


def recipe(name: str, steps: int) -> Attack:
    """One of ATTACKS with so many steps, where it has a choice. Raises InputError."""
    if name not in ATTACKS:
        raise registry.unknown("attack", name, list(ATTACKS))
    if not 1 <= steps <= MAX_STEPS:
        raise InputError(f"{steps} steps are not offered here.", hint=f"Choose 1 to {MAX_STEPS}.")
    takes = {f.name for f in fields(registry.get("attack", name).obj)}
    attack: Attack = registry.create("attack", name, **({"steps": steps} if "steps" in takes else {}))
    return attack


def budget(levels: float) -> Threat:
    """linf of so many grey levels. Raises InputError."""
    if not 0 < levels <= MAX_EPS:
        raise InputError(f"A budget of {levels:g}/255 is not offered here.", hint=f"Choose up to {MAX_EPS}/255.")
    return Threat(norm="linf", eps=levels / 255)


def live(
    segmenter: Segmenter, image: Tensor, prompt: Prompt, *, attack: Attack, threat: Threat, stop: threading.Event
) -> Iterator[Moment]:
    """Attack one image (float32 3xHxW) and yield a moment for each step, the delivered 8-bit image as the last.

    The attack waits until its moment was taken, so that two beside each other go in step. Ends early when `stop` is
    set or the generator is closed; what goes wrong inside the attack is raised here.
    """
    batch = image[None].to(segmenter.device)
    first = segmenter.predict(batch, [[prompt]])[0].masks[0].cpu()
    clean = _pixels(to_uint8(image))
    moment = Moment(
        step=0, steps=0, clean=clean, adversarial=clean, before=first.numpy(), after=first.numpy(), curve=((0, 1.0),)
    )
    passed: queue.Queue[Moment | BaseException | None] = queue.Queue(maxsize=1)

    def put(item: Moment | BaseException | None) -> None:
        while not stop.is_set():
            try:
                passed.put(item, timeout=WAIT)
                return
            except queue.Full:
                continue

    def seen(images: Tensor, step: int, steps: int) -> Moment:
        """Of uint8 1x3xHxW."""
        nonlocal moment
        after = segmenter.predict(from_uint8(images), [[prompt]])[0].masks[0].cpu()
        overlap = float(iou(first[None], after[None])[0])
        earlier = tuple(pair for pair in moment.curve if pair[0] < step) or moment.curve[:1]
        curve = earlier if step == 0 else (*earlier, (step, overlap))
        moment = replace(
            moment, step=step, steps=steps, adversarial=_pixels(images[0]), after=after.numpy(), curve=curve
        )
        return moment

    def look(at: Look) -> None:
        if stop.is_set():
            raise _Stopped
        if at.step:  # the start is no step: a random one would look like the attack's doing
            with torch.no_grad():
                put(seen(to_uint8(at.images), at.step, at.steps))

    def work() -> None:
        try:
            with watching(look):
                found = attack.run(segmenter, batch, [[prompt]], threat=threat, seeds=[0])
            last = seen(found.images, found.steps[0], max(found.steps[0], moment.steps))
            put(replace(last, result=_told(segmenter, prompt, attack, threat, found, last)))
        except _Stopped:
            return
        except BaseException as error:  # carried to whoever iterates
            put(error)
        finally:
            put(None)

    yield moment
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        while not stop.is_set():
            try:
                item = passed.get(timeout=WAIT)
            except queue.Empty:
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        worker.join()


def _pixels(image: Tensor) -> NDArray[np.uint8]:
    return np.ascontiguousarray(image.cpu().permute(1, 2, 0).numpy())


def _told(
    segmenter: Segmenter, prompt: Prompt, attack: Attack, threat: Threat, found: AttackResult, last: Moment
) -> dict[str, Any]:
    """What the JSON file says."""
    spent = found.budget[0]
    noise = float(psnr(from_uint8(found.images[0].cpu()), _float(last.clean)))
    return {
        "schema": 1,
        "redsam": __version__,
        "model": {"name": segmenter.undefended.name, "fingerprint": segmenter.undefended.fingerprint()},
        "defense": segmenter.defense,
        "attack": registry.spec_of(attack),
        "threat": threat.to_dict(),
        "prompt": prompt.to_dict(),
        "size": list(last.clean.shape[:2]),
        "seed": 0,
        "budget": {"linf": spent.linf, "linf_levels": round(spent.linf * 255), "l2": spent.l2, "l0": spent.l0},
        "psnr": noise if noise < float("inf") else None,
        "steps": found.steps[0],
        "gradients": found.gradients,
        "flag": found.flags[0],
        "reference": "clean prediction",
        "iou": last.iou,
        "iou_by_step": [[step, value] for step, value in last.curve],
        "area_before": float(last.before.mean()),
        "area_after": float(last.after.mean()),
    }


def _float(pixels: NDArray[np.uint8]) -> Tensor:
    return from_uint8(torch.from_numpy(pixels).permute(2, 0, 1))
