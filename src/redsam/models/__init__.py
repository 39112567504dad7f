"""Promptable models behind one differentiable, batched interface.

`load` a lab model, a hub id, a folder, a Meta .pth file or a module; `wrap` an own model; `tiny` for tests.
"""

from redsam.models.automatic import MaskSet, automatic_masks
from redsam.models.base import Segmenter
from redsam.models.custom import wrap
from redsam.models.init import initialise
from redsam.models.lab import lab_names
from redsam.models.loading import load
from redsam.models.prediction import Prediction
from redsam.models.tiny import tiny
from redsam.models.values import Encoding, Masks, ModelPrompts, Select

__all__ = [
    "Encoding",
    "MaskSet",
    "Masks",
    "ModelPrompts",
    "Prediction",
    "Segmenter",
    "Select",
    "automatic_masks",
    "initialise",
    "lab_names",
    "load",
    "tiny",
    "wrap",
]
