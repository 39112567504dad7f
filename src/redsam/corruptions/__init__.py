"""Corruptions: natural changes of an image with a severity and a seed; masks and prompts move where pixels move."""

from redsam.corruptions.base import Corrupted, Corruption

__all__ = ["Corrupted", "Corruption"]
