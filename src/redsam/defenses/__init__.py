"""Defences: purifiers from image to image, models behind them, and certificates."""

from redsam.defenses.base import Purifier
from redsam.defenses.defended import DefendedSegmenter
from redsam.defenses.loading import load
from redsam.defenses.specs import apart, chain, parse

__all__ = ["DefendedSegmenter", "Purifier", "apart", "chain", "load", "parse"]
