"""harden: from a model, a method and photographs to a folder that transformers alone loads, a delta and a card."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from redsam.attacks.universal_settings import same
from redsam.data import Dataset
from redsam.errors import InputError
from redsam.models.base import Segmenter
from redsam.models.checkpoints import first_line
from redsam.registry import spec_of
from redsam.storage import alone
from redsam.tuning.base import Tuning, photograph, prove_frozen
from redsam.tuning.card import card
from redsam.tuning.checks import Score, clean_iou, robust_iou
from redsam.tuning.course import Course
from redsam.tuning.delta import Delta, lay
from redsam.tuning.lessons import divided, held_out, probe
from redsam.tuning.loop import Training, Watch
from redsam.tuning.patches import Whole

DELTA, STATE, FACTS, CARD = "delta.safetensors", "state.safetensors", "hardening.json", "README.md"
# The weights once more while the folder is written, and the trained numbers four times over in the state.
SPARE = 1.2


@dataclass(frozen=True, kw_only=True)
class Hardened:
    """out: the folder. delta: what changed. facts: what hardening.json says."""

    out: Path
    delta: Delta
    facts: Mapping[str, Any]


def harden(
    segmenter: Segmenter,
    data: Dataset,
    *,
    method: Tuning,
    out: Path | str,
    course: Course | None = None,
    processor: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
) -> Hardened:
    """Train a method's numbers on photographs with masks and write the folder `out`: config and weights as
    `save_pretrained` has them, delta.safetensors, README.md (a model card), hardening.json. The segmenter ends up with
    the hardened weights. processor: settings of the model's image processor, to travel with the folder.

    Interrupted or killed and called again with the same arguments it goes on; after the end it returns what is there.
    Raises InputError for what cannot be trained or written, before anything is trained where that can be known.
    """
    course, out = course or Course(), Path(out).expanduser()
    check_model(segmenter)
    settings = {
        "method": spec_of(method), "model": segmenter.name, "fingerprint": segmenter.fingerprint(),
        "data": data.fingerprint, **course.to_dict(),
    }  # fmt: skip
    if (out / FACTS).exists():
        return finished(segmenter, out, settings)
    room(segmenter, out)
    with alone(out):
        if (out / FACTS).exists():  # by another process, a moment ago
            return finished(segmenter, out, settings)
        train, held_data = divided(data, course.held_out)
        held = held_out(held_data, course, segmenter)
        probe(train)
        before, clean = photograph(segmenter.model), segmenter.fingerprint()
        attached = method.attach(segmenter.model, seed=course.seed)
        count = attached.count
        try:
            training = Training(
                segmenter=segmenter, attached=attached, course=course, data=train, held=held,
                lr=course.lr or method.lr, home=out / STATE, settings=settings, watch=watch,
            )  # fmt: skip
            state = training.run()
            patches = attached.patches()
        finally:
            attached.release()
        prove_frozen(segmenter.model, before)
        lay(segmenter.model, patches)  # so that what is saved is what the delta gives
        delta = Delta(
            method=spec_of(method), model=segmenter.name, before=clean, after=segmenter.fingerprint(), patches=patches,
            notes={"data": data.name, "images": len(train), "steps": state.step, "seed": course.seed},
        )  # fmt: skip
        after = Score(clean=clean_iou(segmenter, held, course), robust=robust_iou(segmenter, held, course))
        facts = {
            "settings": settings, "numbers": count, "parameters": sum(p.numel() for p in segmenter.model.parameters()),
            "changed": [{"weight": p.weight, "kind": p.kind, "numbers": p.numbers} for p in patches],
            "tensors": len(before), "tensors_frozen": len(before) - sum(isinstance(p, Whole) for p in patches),
            "data": data.name, "images": len(train),
            "held_out": {"images": len(held_data), "prompts": sum(len(s.prompts) for _, s in held)},
            "before": {k: state.history[0][k] for k in ("clean", "robust")}, "after": after.to_dict(),
            "best": state.top, "ended": state.ended, "steps": state.step, "minutes": round(state.minutes, 2),
            "skipped": state.skipped, "history": state.history, "before_fingerprint": clean,
            "after_fingerprint": delta.after,
        }  # fmt: skip
        write(segmenter, out, delta=delta, facts=facts, processor=processor)
    return Hardened(out=out, delta=delta, facts=facts)


def check_model(segmenter: Segmenter) -> None:
    """Raises InputError for a model that cannot be trained here."""
    if not segmenter.differentiable:
        raise InputError(f"{segmenter.name} gives no gradients, so it cannot be trained.", hint="Purify its images.")
    if segmenter.undefended is not segmenter:
        raise InputError(
            f"{segmenter.name} stands behind purifiers; hardening trains weights.",
            hint="Harden the model alone, and put purifiers in front of the folder.",
        )
    if not segmenter.takes_clicks:
        raise InputError(f"{segmenter.name} takes texts only; hardening asks with points and boxes.")
    if not callable(getattr(segmenter.model, "save_pretrained", None)):
        raise InputError(
            f"{segmenter.name} ({segmenter.family}) is no transformers model, so no plain folder can be written.",
            hint="Train it in Python: redsam.tuning.loop.Training.",
        )
    if str(segmenter.dtype) != "torch.float32":
        raise InputError(f"{segmenter.name} is in {segmenter.dtype}; hardening trains in float32.")


def finished(segmenter: Segmenter, out: Path, settings: Mapping[str, Any]) -> Hardened:
    """What is there already, when it is the same hardening; the delta is laid on the model."""
    try:
        facts = json.loads((out / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{out / FACTS} cannot be read: {error}.", hint="Give another --out folder.") from error
    same(settings, facts.get("settings", {}), out / FACTS, "is of another hardening")
    delta = Delta.load(out / DELTA)
    delta.apply(segmenter)
    return Hardened(out=out, delta=delta, facts=facts)


def room(segmenter: Segmenter, out: Path) -> None:
    """See that the folder is free, can be written, and the disk takes it. Raises InputError."""
    if (out / "config.json").exists() and not (out / STATE).exists():
        raise InputError(f"{out}: there is a model already.", hint="Give another --out folder.")
    probe_file = out / ".redsam-probe"
    needed = SPARE * 2 * sum(v.numel() * v.element_size() for v in segmenter.model.state_dict().values())
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe_file.write_bytes(b"")
        probe_file.unlink()
        free = shutil.disk_usage(out).free
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"{out}: cannot write there ({reason}).", hint="Give another --out folder.") from error
    if free < needed:
        raise InputError(
            f"{out}: {free / 1e6:.0f} MB are free, the hardened model needs about {needed / 1e6:.0f} MB.",
            hint="Free some space, or give another --out.",
        )


def write(
    segmenter: Segmenter, out: Path, *, delta: Delta, facts: Mapping[str, Any], processor: Mapping[str, Any] | None
) -> None:
    """The folder of a hardening. Raises InputError when the disk is full; the state is then there to go on from."""
    texts = {CARD: card(delta, facts), FACTS: json.dumps(facts, indent=1, allow_nan=False) + "\n"}
    save_folder(segmenter, out, processor=processor, texts=texts, delta=delta)
    (out / STATE).unlink(missing_ok=True)


def save_folder(
    segmenter: Segmenter,
    out: Path,
    *,
    processor: Mapping[str, Any] | None = None,
    texts: Mapping[str, str] | None = None,
    delta: Delta | None = None,
) -> None:
    """Model, processor's settings, texts and delta into a folder; the last text comes last, so that where it stands all
    the others do. Raises InputError when it cannot be written."""
    part, model = out / ".part", cast(Any, segmenter.model)
    others = dict(texts or {})
    if processor:
        others = {"preprocessor_config.json": json.dumps(dict(processor), indent=1) + "\n", **others}
    last = list(others)[-1:]
    try:
        shutil.rmtree(part, ignore_errors=True)
        with silent():
            model.save_pretrained(part)
        for name, text in others.items():
            (part / name).write_text(text, encoding="utf-8")
        if delta is not None:
            delta.save(part / DELTA)
        mode = (part / "config.json").stat().st_mode
        for file in sorted(part.iterdir(), key=lambda f: f.name in last):
            file.chmod(mode)  # safetensors writes for the owner alone
            os.replace(file, out / file.name)
        part.rmdir()
    except InputError:
        raise
    except Exception as error:  # safetensors has a class of its own for a full disk
        shutil.rmtree(part, ignore_errors=True)
        reason = getattr(error, "strerror", None) or first_line(error)
        raise InputError(
            f"{out}: the model could not be written ({reason}).",
            hint="What was trained is kept: free some space and type the same command again.",
        ) from error


@contextmanager
def silent() -> Iterator[None]:
    """Keep transformers' progress bar for the shards it writes off the terminal."""
    from transformers import utils

    logging = cast(Any, utils).logging  # untyped
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
