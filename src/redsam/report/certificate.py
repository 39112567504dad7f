"""A certificate as a picture: what is certainly of the object, certainly not, and where the model abstains."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from redsam.errors import InputError
from redsam.report.pictures import MASK_RGB, Pixels

STRIPE = 4  # pixels, of the stripes of abstention; at least, for small photographs


def certificate_map(image: Pixels, mask: NDArray[np.bool_], certified: NDArray[np.bool_]) -> Pixels:
    """uint8 HxWx3 photograph with one mask's certificate on it: certified object in the colour of masks, certified rest
    as it is, abstention in white and black stripes. mask, certified: bool HxW. Raises InputError for other shapes."""
    if image.ndim != 3 or not mask.shape == certified.shape == image.shape[:2]:
        raise InputError(f"A certificate of {mask.shape} and {certified.shape} on an image of {image.shape}.")
    out = image.astype(np.float32)
    sure = mask & certified
    out[sure] = 0.45 * out[sure] + 0.55 * np.asarray(MASK_RGB, dtype=np.float32)
    width = max(STRIPE, min(mask.shape) // 80)
    rows, columns = np.indices(mask.shape)
    white = (((rows + columns) // width) % 2 == 0)[..., None]
    striped = 0.35 * out + 0.65 * np.where(white, np.float32(255), np.float32(0))
    out = np.where(certified[..., None], out, striped)
    return np.asarray(out.round(), dtype=np.uint8)
