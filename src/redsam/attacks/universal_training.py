"""train: a universal perturbation from a set of images, in passes over them, one image after the other.

Everything drawn derives from (seed, epoch, image), and the whole state (perturbation, what the recipe remembers, place)
is stored beside the artefact every few images, so that a training that was killed goes on to the bit-identical result.
Attacks do not know data sets: images come as any sequence of scenes or samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from redsam.attacks.artefact import Artefact, read, store
from redsam.attacks.check import blind
from redsam.attacks.task import Task
from redsam.attacks.universal import Lesson, Memory, UniversalAttack, Unusable
from redsam.attacks.universal_settings import Images, Prompting, described, fingerprint, ids_of, same, side_of
from redsam.errors import InputError
from redsam.models.base import Segmenter
from redsam.registry import spec_of
from redsam.seeds import generator, stable_seed
from redsam.storage import alone
from redsam.threat import Threat
from redsam.types import Sample, Scene


class Progress(Protocol):
    """Told after every image; nothing here may raise."""

    def __call__(self, *, done: int, total: int, note: str) -> None: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Course:
    """Where a training is; replaced as a whole after each image. done: turns taken, over all epochs. skipped: id and
    reason of images that could not be used. steps: gradients taken."""

    delta: Tensor
    memory: Memory = field(default_factory=dict)
    done: int = 0
    steps: int = 0
    skipped: Mapping[str, str] = field(default_factory=dict)


def train(
    attack: UniversalAttack,
    segmenter: Segmenter,
    images: Images,
    *,
    threat: Threat,
    out: Path,
    protocol: Prompting | None = None,
    epochs: int | None = None,
    seed: int = 0,
    size: int | None = None,
    save_every: int = 5,
    progress: Progress | None = None,
) -> Artefact:
    """Learn a perturbation and write it to `out`. images: scenes or samples, read one by one; those that cannot be
    read are recorded and passed over. protocol: prompts a scene, for recipes that read prompts. epochs: default the
    attack's own. size: side of the perturbation in pixels, default the model's own frame. save_every: images between
    two stored states; the state lies beside `out` with `.state` added, and is taken away at the end.

    Called again after an interruption, with the same arguments, it goes on. Called again after the end it returns what
    is there. Raises InputError when the file or the state belongs to another training, and StorageError while another
    process is at it; `out` with `.lock` added says so.
    """
    attack = attack if epochs is None else replace(attack, epochs=epochs)
    _check(attack, segmenter, images, threat, size)
    home = out.with_name(f"{out.name}.state")
    settings = {
        "attack": spec_of(attack),
        "model": segmenter.name,
        "fingerprint": segmenter.fingerprint(),
        "eps": threat.eps,
        "norm": threat.norm,
        "data": fingerprint(images),
        "protocol": described(protocol),
        "epochs": attack.epochs,
        "seed": seed,
        "size": size if size is not None else side_of(segmenter, images),
    }
    if out.exists():
        return _finished(out, settings, home)
    with alone(out):
        if out.exists():  # by another process, a moment ago
            return _finished(out, settings, home)
        course = _begin(attack, segmenter, settings, home)
        total, failed = attack.epochs * len(images), len(course.skipped)
        try:
            for reached in _turns(attack, segmenter, images, threat, protocol, seed, course):
                course = reached
                if course.done % save_every == 0:
                    _save(course, settings, home)
                if progress is not None:
                    note = "; ".join(f"{k}: {v}" for k, v in list(course.skipped.items())[failed:])
                    progress(done=course.done, total=total, note=note)
                    failed = len(course.skipped)
        except KeyboardInterrupt:
            _save(course, settings, home)
            raise
        ids = ids_of(images)
        if len(course.skipped) == len(set(ids)):
            raise InputError(f"None of the {len(ids)} images could be used: {next(iter(course.skipped.values()))}")
        kept = {k: v for k, v in settings.items() if k != "size"}
        artefact = Artefact(
            delta=course.delta.cpu(), ids=[i for i in ids if i not in course.skipped], steps=course.steps,
            skipped=course.skipped, **cast(dict[str, Any], kept),
        )  # fmt: skip
        artefact.save(out)
        home.unlink(missing_ok=True)
    return artefact


def _finished(out: Path, settings: Mapping[str, Any], home: Path) -> Artefact:
    """The artefact that is there, if it is the one that was asked for."""
    made = Artefact.load(out)
    same(settings, made.to_dict(), out, "holds another perturbation")
    home.unlink(missing_ok=True)
    return made


def _turns(
    attack: UniversalAttack,
    segmenter: Segmenter,
    images: Images,
    threat: Threat,
    protocol: Prompting | None,
    seed: int,
    course: Course,
) -> Iterator[Course]:
    """The course after each image that is left; every epoch has its own order."""
    count, ids = len(images), ids_of(images)
    for turn in range(course.done, attack.epochs * count):
        epoch, place = divmod(turn, count)
        index = int(torch.randperm(count, generator=generator(seed, "order", epoch))[place])
        memory = dict(course.memory)  # what a turn that fails has put there is forgotten
        name = ids[index]
        try:
            task = _task(attack, segmenter, images[index], threat, protocol, seed, epoch)
            lesson = Lesson(task=task, fit=attack.fit, count=count)
            delta = attack.learn(course.delta, lesson, memory)
            course = replace(
                course, delta=delta.detach(), memory=memory, done=turn + 1, steps=course.steps + lesson.gradients
            )
        except (Unusable, InputError) as error:
            course = replace(course, done=turn + 1, skipped={**course.skipped, name: str(error)})
        yield course


def _task(
    attack: UniversalAttack,
    segmenter: Segmenter,
    item: Scene | Sample,
    threat: Threat,
    protocol: Prompting | None,
    seed: int,
    epoch: int,
) -> Task:
    """One image as a task. Raises Unusable when the recipe reads prompts and it has none."""
    sample = protocol(item, seed=seed) if protocol is not None and isinstance(item, Scene) else item
    prompts = list(sample.prompts) if isinstance(sample, Sample) else []
    if not prompts and (attack.reads_masks() or attack.needs_reference()):
        raise Unusable(str(sample.meta.get("skip", "no prompt")))
    clean = sample.image[None].to(segmenter.device)
    reference = [m.masks for m in segmenter.predict(clean, [prompts])] if attack.needs_reference() else None
    return Task(
        segmenter=segmenter, clean=clean, prompts=[prompts], reference=reference, threat=threat,
        seeds=[stable_seed(seed, epoch, sample.id)],
    )  # fmt: skip


def _check(attack: UniversalAttack, segmenter: Segmenter, images: Images, threat: Threat, size: int | None) -> None:
    """Everything that can be wrong before the first pass. Raises InputError."""
    if not isinstance(attack, UniversalAttack):
        raise InputError(
            f"'{spec_of(attack)['name']}' makes no universal perturbation.", hint="See: redsam list attacks"
        )
    name = spec_of(attack)["name"]
    if not segmenter.differentiable:
        raise blind(name, segmenter)
    if attack.artefact is not None:
        raise InputError(f"A training of '{name}' makes an artefact and takes none.", hint="Leave artefact out.")
    if threat.norm != "linf" or threat.space != "image" or threat.region != "all" or threat.eps <= 0:
        raise InputError(
            f"A universal perturbation is bounded in linf by more than 0 on whole images in original pixels, not "
            f"{threat.label}, space {threat.space}, region {threat.region}."
        )
    if not len(images):
        raise InputError("There is no image to learn from.")
    if attack.epochs < 1 or attack.inner < 1:
        raise InputError(
            f"{attack.epochs} epochs of {attack.inner} steps an image teach nothing.", hint="Give 1 or more."
        )
    if size is not None and size < 1:
        raise InputError(f"A perturbation of {size} x {size} pixels cannot be.", hint="Give a side of at least 1.")


def _begin(attack: UniversalAttack, segmenter: Segmenter, settings: Mapping[str, Any], home: Path) -> Course:
    """The stored course if there is one, else a new one."""
    if not home.exists():
        first = attack.begin(settings["size"], settings["eps"], generator(settings["seed"], "begin"))
        return Course(delta=first.to(segmenter.device))
    tensors, meta = read(home)
    if meta.get("kind") != "universal training" or "delta" not in tensors:
        raise InputError(f"{home}: no state of a training.", hint="Delete it, or give another --out.")
    same(settings, meta["settings"], home, "belongs to another training")
    held = {k.removeprefix("memory."): v.to(segmenter.device) for k, v in tensors.items() if k != "delta"}
    return Course(
        delta=tensors["delta"].to(segmenter.device), memory=held, done=meta["done"], steps=meta["steps"],
        skipped=meta["skipped"],
    )  # fmt: skip


def _save(course: Course, settings: Mapping[str, Any], home: Path) -> None:
    tensors = {"delta": course.delta, **{f"memory.{k}": v for k, v in course.memory.items()}}
    meta = {"done": course.done, "steps": course.steps, "skipped": dict(course.skipped), "settings": dict(settings)}
    store(home, tensors, {"kind": "universal training", **meta})
