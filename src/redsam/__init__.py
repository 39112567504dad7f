"""redsam: red-team, measure and harden promptable segmentation models."""

__version__ = "0.1.0"
