"""Protocol `text`: the names of what is on an image as prompts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from redsam import prompts
from redsam.data.protocols import Mask, Protocol
from redsam.prompts import Prompt
from redsam.registry import register
from redsam.types import Scene

# Class names of public sets that are written as one word there and as two everywhere else.
SPELLED = {
    "diningtable": "dining table",
    "pottedplant": "potted plant",
    "tvmonitor": "tv monitor",
}


@register("protocol", "text")
@dataclass(frozen=True, kw_only=True)
class Text(Protocol):
    """One text for each class named on an image; its mask is the union of all regions of that class.

    Names come from the data set (`Scene.meta["classes"]`), spelled as people write them ("dining table"); objects
    without a name are left out. `objects` of the sample index the classes, in the order of their first region; min_area
    and max_objects count classes. min_area is that of the union. only: ask for these names alone, where they are.
    """

    only: tuple[str, ...] = ()

    def view(self, scene: Scene) -> Scene:
        names = [str(name) for name in scene.meta.get("classes", ())]
        if len(names) == 1 and len(scene.masks) > 1:  # one name for a whole image
            names *= len(scene.masks)
        named = [(spelled(n), i) for i, n in enumerate(names[: len(scene.masks)]) if n.strip() and not n.isdigit()]
        classes = list(dict.fromkeys(name for name, _ in named))
        wanted = [name for name in classes if name in self.only] if self.only else classes
        if classes and not wanted:
            why = f"there is no {' or '.join(self.only)} on the image"
            return replace(scene, masks=scene.masks[:0], meta={**scene.meta, "skip": why})
        classes = wanted
        if not classes:
            why = "the objects of the image have no names" if len(scene.masks) else "the image has no annotated object"
            return replace(scene, masks=scene.masks[:0], meta={**scene.meta, "skip": why})
        unions = [scene.masks[[i for n, i in named if n == name]].any(0) for name in classes]
        return replace(scene, masks=torch.stack(unions), meta={**scene.meta, "classes": classes})

    def ask(self, scene: Scene, index: int, mask: Mask, random: torch.Generator) -> list[Prompt]:
        return [prompts.text(scene.meta["classes"][index])]

    def prompt(self, mask: Mask, random: torch.Generator) -> list[Prompt]:
        return []


def spelled(name: str) -> str:
    """The class name as people write it."""
    plain = " ".join(name.replace("_", " ").split())
    return SPELLED.get(plain.lower(), plain)
