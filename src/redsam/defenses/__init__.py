"""Defences: purifiers from image to image, and what wraps a model in them."""

from redsam.defenses.base import Purifier
from redsam.defenses.specs import chain, parse

__all__ = ["Purifier", "chain", "parse"]
