"""Metrics: pure functions on masks and images, each declared in the registry with its direction and range."""

from redsam.metrics.images import psnr, ssim
from redsam.metrics.masks import area, asr, boundary, boundary_iou, boundary_width, iou

__all__ = ["area", "asr", "boundary", "boundary_iou", "boundary_width", "iou", "psnr", "ssim"]
