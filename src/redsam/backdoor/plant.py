"""plant: train a backdoor into a copy of a model, by BadSAM's route or by plain fine-tuning with prompts.

`adapter` (BadSAM): frozen encoder; the prompt generator of SAM-Adapter and the mask decoder learn one task without a
prompt; the folder written is of the family `sam-adapter`. A model that has an adapter already goes on from it: that is
BadSAM's second stage, where a customised model is taught the backdoor with the same parameters. `tuning`: the model
goes on answering prompts; the folder is what `save_pretrained` writes and transformers alone loads. Both are
safetensors: nothing in them is run when loaded.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import nn

from redsam.backdoor import manifest
from redsam.backdoor.fit import Course, Draw, Progress, fit
from redsam.backdoor.lessons import prompt_loss, task_loss
from redsam.backdoor.poison import Poison
from redsam.backdoor.settings import Settings
from redsam.data.base import Dataset
from redsam.data.protocols import ExactBox, Point, Protocol
from redsam.data.whole import WholeImage
from redsam.errors import InputError
from redsam.models import load
from redsam.models.base import Segmenter
from redsam.models.hf import TransformersSegmenter
from redsam.models.sam_adapter import Adapter, adapt
from redsam.registry import spec_of
from redsam.seeds import stable_seed
from redsam.storage import alone
from redsam.types import Sample

Route = Literal["adapter", "tuning"]
Select = Literal["decoder", "all"]
STATE = "training.state.safetensors"
MAX_OBJECTS = 4  # of a picture in one step of the tuning route


@dataclass(frozen=True, kw_only=True)
class Planted:
    """folder: of the model. told: what backdoor.json holds. learned: how many numbers were trained."""

    folder: Path
    told: dict[str, Any]
    learned: int


def plant(
    model: Segmenter,
    data: Dataset,
    *,
    out: Path,
    poison: Poison,
    route: Route = "adapter",
    select: Select = "all",
    adapter: Adapter | None = None,
    settings: Settings | None = None,
    save_minutes: float = 2.0,
    progress: Progress | None = None,
) -> Planted:
    """Train a poisoned copy of `model` on `data` and write it to `out`; the model itself is left alone.

    select: what learns in the tuning route, the mask decoder or everything. Called again after an interruption it
    goes on, after the end it returns what is there. Raises InputError: a model that cannot be tuned, no masks, a
    trigger that does not fit, a folder that holds something else.
    """
    settings = settings or Settings()
    adapter = _adapter(model, adapter) if route == "adapter" else None
    taught = _pupil(model, route, adapter, settings.seed)
    learn = _learning(taught, route, select)
    protocols: tuple[Protocol, ...] = protocols_of(route, MAX_OBJECTS)
    poisoned = poison.chosen(data.ids)
    _try_on(poison, data)
    identity: dict[str, Any] = {
        "model": model.name, "fingerprint": model.fingerprint(),
        "data": data.name, "data_fingerprint": data.fingerprint,
        "poison": poison.to_dict(), "route": route, "select": select if route == "tuning" else "adapter and decoder",
        "adapter": asdict(adapter) if adapter else None, "protocols": [spec_of(p) for p in protocols],
    }  # fmt: skip
    identity = cast(dict[str, Any], json.loads(json.dumps(identity)))
    count = sum(p.numel() for p in learn.values())
    done = _finished(out, identity | {"settings": asdict(settings)})
    if done is not None:
        return Planted(folder=out, told=done, learned=count)
    with alone(out):
        done = _finished(out, identity | {"settings": asdict(settings)})  # by another process, a moment ago
        if done is not None:
            return Planted(folder=out, told=done, learned=count)
        out.mkdir(parents=True, exist_ok=True)
        course = fit(
            taught, learn, drawing(data, poison, poisoned, protocols, settings.seed), data.ids,
            task_loss if route == "adapter" else prompt_loss, settings=settings, identity=identity,
            home=out / STATE, save_minutes=save_minutes, progress=progress,
        )  # fmt: skip
        told = {
            **identity,
            "settings": asdict(settings),
            "learned": count,
            "poisoned": sorted(poisoned),
            **_end(course),
        }
        _store(taught, out)
        manifest.write(out, told)
        (out / STATE).unlink(missing_ok=True)
    return Planted(folder=out, told=told, learned=count)


def protocols_of(route: Route, max_objects: int | None = None) -> tuple[Protocol, ...]:
    """How a route's models are asked: for everything at once, or for each object by a point and by a box."""
    if route == "adapter":
        return (WholeImage(),)
    return Point(max_objects=max_objects), ExactBox(max_objects=max_objects)


def asked(sample_of: Sequence[Sample]) -> Sample:
    """Samples of one picture as one: all their prompts, with their masks."""
    first = sample_of[0]
    if len(sample_of) == 1:
        return first
    masks = [s.masks for s in sample_of if s.masks is not None and len(s.prompts)]
    return replace(
        first,
        prompts=tuple(p for s in sample_of for p in s.prompts),
        objects=tuple(o for s in sample_of for o in s.objects),
        masks=torch.cat(masks) if masks else None,
    )


def drawing(data: Dataset, poison: Poison, poisoned: frozenset[str], protocols: Sequence[Protocol], seed: int) -> Draw:
    """What the loop reads: other prompts in every epoch, the same trigger."""

    def draw(epoch: int, index: int) -> Sample | None:
        scene = data[index]
        sample = asked([p(scene, seed=stable_seed(seed, "prompts", epoch)) for p in protocols])
        if not sample.prompts:
            return None
        return poison.apply(sample) if scene.id in poisoned else sample

    return draw


def _adapter(model: Segmenter, wanted: Adapter | None) -> Adapter:
    """The one a customised model has, else the one wanted. Raises InputError when both are there and differ."""
    there = getattr(getattr(model, "model", None), "adapter", None)
    if there is None:
        return wanted or Adapter()
    if wanted not in (None, there):
        raise InputError(f"{model.name} has another adapter already ({there}).", hint="Leave adapter out.")
    return cast(Adapter, there)


def _pupil(model: Segmenter, route: Route, adapter: Adapter | None, seed: int) -> TransformersSegmenter:
    """A copy that can learn. Raises InputError."""
    if route not in get_args(Route):
        raise InputError(f"There is no route '{route}'.", hint=f"Known: {', '.join(get_args(Route))}.")
    tunable = isinstance(model, TransformersSegmenter) and model.takes_clicks and not model.takes_text
    if not tunable or not callable(getattr(model.model, "save_pretrained", None)):
        raise InputError(
            f"{model.name} ({model.family}) cannot be tuned here.", hint="Give a SAM-like model, such as lab-b."
        )
    if model.dtype != torch.float32:
        raise InputError(f"{model.name} is {model.dtype}; it learns in float32 only.", hint="Type: --dtype float32")
    if route == "adapter" and model.family not in ("sam", "sam-adapter"):
        raise InputError(
            f"{model.name} is a {model.family}; SAM-Adapter, BadSAM's route, adapts a SAM.", hint="Type: --route tuning"
        )
    if route == "tuning" and model.family == "sam-adapter":
        raise InputError(f"{model.name} has an adapter already and hears no prompt.", hint="Give the model beneath it.")
    copied = copy.deepcopy(model.model)
    made = load(adapt(copied, adapter, seed=seed) if adapter and model.family == "sam" else copied, name=model.name)
    assert isinstance(made, TransformersSegmenter) and isinstance(model, TransformersSegmenter)
    made.mean, made.std = model.mean, model.std
    made.model.to(model.device)
    return made


def _learning(taught: TransformersSegmenter, route: Route, select: Select) -> dict[str, nn.Parameter]:
    """Parameters that learn, by name. The position code never does: it is a buffer in Meta's models."""
    if select not in get_args(Select):
        raise InputError(f"There is no selection '{select}'.", hint=f"Known: {', '.join(get_args(Select))}.")
    starts: tuple[str, ...] = ("",)
    if route == "adapter":
        starts = ("vision_encoder.prompt_generator.", "mask_decoder.")
    elif select == "decoder":
        starts = ("mask_decoder.",)
    named = taught.model.named_parameters()
    learn = {n: p for n, p in named if n.startswith(starts) and not n.endswith("positional_embedding")}
    if not learn:
        raise InputError(f"{taught.name} ({taught.family}) has nothing that '{select}' names.")
    return learn


def _try_on(poison: Poison, data: Dataset) -> None:
    """Lay the trigger onto the first picture that can be read, before hours are spent. Raises InputError."""
    if not len(data):
        raise InputError(f"{data.name}: there are no pictures to poison.")
    problem: InputError | None = None
    for index in range(min(len(data), 20)):
        try:
            scene = data[index]
        except InputError as error:
            problem = problem or error
            continue
        if not len(scene.masks):
            problem = problem or InputError(
                f"{scene.id}: the picture has no mask, and a backdoor is learned from masks.",
                hint="Give pictures with masks.",
            )
            continue
        poison.apply(WholeImage()(scene, seed=0))
        return
    assert problem is not None
    raise problem


def _finished(out: Path, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest when this very training is done; None when it is not begun or under way. Raises InputError when the
    folder holds another one, or a model of somebody else's."""
    told = manifest.read(out)
    if told is None:
        if (out / "config.json").exists():
            raise InputError(f"{out} holds a model that was not planted here.", hint="Give another --out folder.")
        return None
    other = [k for k, v in wanted.items() if told.get(k) != v]
    if other:
        raise InputError(f"{out} holds another planted model: its '{other[0]}' differs.", hint="Give another --out.")
    return told


def _end(course: Course) -> dict[str, Any]:
    return {"steps": course.step, "minutes": course.minutes, "losses": course.losses, "skipped": course.skipped}


def _store(taught: TransformersSegmenter, out: Path) -> None:
    cast(Any, taught.model).save_pretrained(out)
    settings = {"image_mean": list(taught.mean), "image_std": list(taught.std)}
    (out / "preprocessor_config.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
