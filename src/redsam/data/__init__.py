"""Readers, the one image reader, and prompt protocols: files become scenes, scenes become samples."""

from redsam.data.base import Dataset, Item, Reader, shared_root
from redsam.data.images import read_image, write_png
from redsam.data.joined import join
from redsam.data.masks import check_mask, read_mask
from redsam.data.opening import open_data
from redsam.data.protocols import Protocol, from_masks

__all__ = [
    "Dataset",
    "Item",
    "Protocol",
    "Reader",
    "check_mask",
    "from_masks",
    "join",
    "open_data",
    "read_image",
    "read_mask",
    "shared_root",
    "write_png",
]
