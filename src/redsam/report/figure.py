"""One picture of one attack: clean, adversarial, difference amplified, and the masks before and after."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from redsam.errors import InputError
from redsam.report.pictures import MASK_RGB, Mask, Pixels, amplified

PANEL = 3.4  # inches a panel


def attack_figure(
    clean: Pixels,
    adv: Pixels,
    masks_clean: NDArray[np.bool_],
    masks_adv: NDArray[np.bool_],
    path: Path | str,
    title: str,
) -> Path:
    """Write the figure (format by the file's ending, PNG at 150 dpi) and return its path.

    clean, adv: uint8 HxWx3 or 3xHxW. masks: bool PxHxW or HxW; several prompts are drawn together. Drawn off screen
    (Agg), touching no global matplotlib state. Raises InputError when the shapes differ or the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    clean, adv = _hwc(clean), _hwc(adv)
    before, after = (_union(np.asarray(m)) for m in (masks_clean, masks_adv))
    if not (clean.shape == adv.shape and before.shape == after.shape == clean.shape[:2]):
        raise InputError(
            f"Figure of images {clean.shape} and {adv.shape} with masks {before.shape} and {after.shape}.",
            hint="Give two images and masks of one size.",
        )
    diff, factor = amplified(clean, adv)
    changed = int(np.abs(adv.astype(np.int16) - clean.astype(np.int16)).max(initial=0))
    panels = [
        ("clean", _paint(clean, before)),
        ("adversarial", _paint(adv, after)),
        ("adversarial, no mask", adv),
        (f"difference × {factor} (at most {changed}/255)", diff),
    ]
    height, width = clean.shape[:2]
    columns = 2 if width > height else 4
    rows = len(panels) // columns
    figure = Figure(figsize=(PANEL * columns, PANEL * rows * height / width + 0.35 * rows + 0.5), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (name, pixels) in zip(axes, panels, strict=True):
        axis.imshow(pixels)
        axis.set_title(name, fontsize=10, loc="left", color="#444444", parse_math=False)
        axis.set_axis_off()
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, parse_math=False)
    figure.tight_layout(pad=0.6)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be written: {error}.", hint="Give a .png path in a folder you own.") from error
    return Path(path)


def _hwc(image: Pixels) -> Pixels:
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or 3 not in (array.shape[0], array.shape[-1]):
        raise InputError(f"Figure of {array.dtype} {array.shape}.", hint="Give uint8 images, HxWx3 or 3xHxW.")
    return array if array.shape[-1] == 3 else array.transpose(1, 2, 0)


def _union(masks: NDArray[np.bool_]) -> Mask:
    stack = masks.astype(bool)
    return np.asarray(stack if stack.ndim == 2 else np.logical_or.reduce(stack, axis=0), dtype=np.bool_)


def _paint(image: Pixels, mask: Mask) -> Pixels:
    out = image.astype(np.float32)
    out[mask] = 0.55 * out[mask] + 0.45 * np.asarray(MASK_RGB, dtype=np.float32)
    return out.round().astype(np.uint8)
