"""Several data sets as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from redsam.data.base import Dataset, Item
from redsam.types import Scene


def join(sets: Sequence[Dataset]) -> Dataset:
    """One data set of the scenes of several, in order; ids become `SET/ID`. One set alone stays as it is."""
    if len(sets) == 1:
        return sets[0]
    origin = {f"{n}:{data.name}/{item.id}": (data, item) for n, data in enumerate(sets) for item in data._items}
    single = len({data.name for data in sets}) == len(sets)

    def named(key: str) -> str:
        return key.partition(":")[2] if single else key.replace(":", "/", 1)

    back = {named(key): pair for key, pair in origin.items()}

    def load(item: Item) -> Scene:
        data, inner = back[item.id]
        return replace(data._load(inner), id=item.id)

    items = [replace(inner, id=name) for name, (_, inner) in back.items()]
    return Dataset(name="+".join(data.name for data in sets), items=items, load=load)
