"""Tuning defences: train few numbers of a model against attacks, and ship them as a folder and a small delta.

`harden` trains; `apply_delta` turns an original into the hardened model, bit for bit.
"""

from redsam.tuning.base import Attached, Tuning
from redsam.tuning.course import Course
from redsam.tuning.delta import Delta, apply_delta
from redsam.tuning.hardening import Hardened, harden

__all__ = ["Attached", "Course", "Delta", "Hardened", "Tuning", "apply_delta", "harden"]
