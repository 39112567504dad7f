"""Everything that can be wrong with what an attack is given, found before the first pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from redsam import registry
from redsam.errors import InputError
from redsam.models.base import Segmenter
from redsam.prompts import Prompt
from redsam.threat import Threat, require_lattice
from redsam.types import check_image

if TYPE_CHECKING:
    from redsam.attacks.base import Attack

# Attacks of these kinds ask for d(mask)/d(image) of the model they are given.
FOLLOW_GRADIENTS = ("white-box", "transfer", "universal")


def validate(
    attack: Attack,
    segmenter: Segmenter,
    images: Tensor,
    prompts: Sequence[Sequence[Prompt]],
    threat: Threat,
    reference: Sequence[Tensor] | None,
    seeds: Sequence[int] | None,
) -> None:
    """Raises InputError with what to do about it."""
    if images.ndim != 4 or not len(images):
        raise InputError(f"An attack takes images Bx3xHxW of one size, got {tuple(images.shape)}.")
    for i, image in enumerate(images):
        check_image(image, f"image {i}")
    require_lattice(images)
    for name, given in (("lists of prompts", prompts), ("references", reference), ("seeds", seeds)):
        if given is not None and len(given) != len(images):
            raise InputError(f"{len(images)} images came with {len(given)} {name}.")
    if (attack.reads_masks() or attack.needs_reference()) and not all(prompts):
        raise InputError(f"Image {[len(p) for p in prompts].index(0)} has no prompt to attack.")
    for i, masks in enumerate(reference or ()):
        if tuple(masks.shape) != (len(prompts[i]), *images.shape[2:]):
            raise InputError(
                f"image {i} of {images.shape[3]} x {images.shape[2]} pixels: {len(prompts[i])} prompts came with "
                f"references {tuple(masks.shape)}.",
                hint=f"Give bool masks {(len(prompts[i]), *images.shape[2:])}, prompts x height x width.",
            )
    entry = registry.get("attack", str(registry.spec_of(attack)["name"]))
    norms = entry.meta["norms"]
    if threat.norm not in norms:
        raise InputError(
            f"Attack '{entry.name}' does not search in {threat.norm}.", hint=f"It takes {', '.join(norms)}."
        )
    known = entry.meta["knowledge"]
    # Who knows the weights can ask for scores too, and need not use what is known.
    if threat.knowledge != "white-box" and threat.knowledge not in known:
        raise InputError(
            f"Attack '{entry.name}' needs knowledge {' or '.join(known)}, the threat's is '{threat.knowledge}'.",
            hint=f"With '{threat.knowledge}' there is {_names('knowledge', threat.knowledge)}.",
        )
    if entry.meta["kind"] in FOLLOW_GRADIENTS and not segmenter.differentiable:
        raise blind(entry.name, segmenter)


def blind(attack: str, segmenter: Segmenter) -> InputError:
    """The refusal of a gradient attack on a model that gives none."""
    return InputError(
        f"Attack '{attack}' follows gradients, and {segmenter.name} gives none.",
        hint=f"Attack it through its answers ({_names('kind', 'score')}), or craft on another model and transfer.",
    )


def _names(key: str, value: str) -> str:
    def has(meta: Any) -> bool:
        return bool(value == meta or (isinstance(meta, tuple) and value in meta))

    found = [e.name for e in registry.entries("attack") if has(e.meta.get(key))]
    return ", ".join(found) or "no attack"
