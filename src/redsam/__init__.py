"""redsam: red-team, measure and harden promptable segmentation models."""
