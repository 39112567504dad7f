"""Reader `demo`: the photographs that travel with the package (licences and credits in demo/README.md)."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from redsam.data.base import Dataset, Reader
from redsam.data.folder import MaskFolder, items_of, pair
from redsam.registry import register


def demo_root() -> Path:
    """Folder of the bundled photographs and masks, in a checkout or an installed wheel."""
    return Path(str(resources.files("redsam.data").joinpath("demo")))


@register("reader", "demo", rank=100, expects="the name 'demo': the bundled photographs")
@dataclass(frozen=True, kw_only=True)
class Demo(Reader):
    """The bundled photographs with instance masks drawn for this project; needs no path and no download."""

    @classmethod
    def accepts(cls, path: Path) -> bool:
        return False  # never guessed: asked for by name

    def open(self, path: Path) -> Dataset:
        return Dataset(name="demo", items=items_of(pair(demo_root())), load=MaskFolder(kind="instance").scene)
