"""Backdoors: plant one by a published route, measure it, look for one in any model, wash it out of the pictures."""

from redsam.backdoor.measure import Measured, measure
from redsam.backdoor.plant import Planted, plant
from redsam.backdoor.poison import Poison
from redsam.backdoor.settings import Settings
from redsam.backdoor.targets import Target
from redsam.backdoor.trigger import Laid, Trigger

__all__ = ["Laid", "Measured", "Planted", "Poison", "Settings", "Target", "Trigger", "measure", "plant"]
