"""Metrics: pure functions on masks and images, each declared in the registry with its direction and range."""

from redsam.metrics.images import psnr, ssim
from redsam.metrics.masks import area, asr, boundary, boundary_iou, boundary_width, iou
from redsam.metrics.saliency import e_measure, mae, s_measure, weighted_f

__all__ = [
    "area",
    "asr",
    "boundary",
    "boundary_iou",
    "boundary_width",
    "e_measure",
    "iou",
    "mae",
    "psnr",
    "s_measure",
    "ssim",
    "weighted_f",
]
