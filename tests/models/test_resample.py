"""The 8-bit resampling is Pillow's own, bit for bit; the floating-point one is the same filter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, __version__

from redsam.models.resample import resize, resize_like_pillow, vertical_first

SIZES = st.integers(min_value=2, max_value=90)


def _pillow(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    resized = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


def _noise(height: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


@settings(max_examples=300, deadline=None)
@given(SIZES, SIZES, SIZES, SIZES, st.integers(0, 2**31))
def test_equals_pillow_bit_for_bit(height: int, width: int, out_h: int, out_w: int, seed: int) -> None:
    # Pillow before 13 knows one order of the passes only.
    assume(int(__version__.split(".")[0]) >= 13 or not vertical_first((height, width), (out_h, out_w)))
    image = _noise(height, width, seed)
    assert torch.equal(resize_like_pillow(image, (out_h, out_w)), _pillow(image, (out_h, out_w)))


@pytest.mark.parametrize(
    ("size", "out"), [((321, 481), (683, 1024)), ((1200, 1600), (768, 1024)), ((7, 3000), (2, 1024))]
)
def test_equals_pillow_at_real_sizes(size: tuple[int, int], out: tuple[int, int]) -> None:
    image = _noise(*size, seed=1)
    assert torch.equal(resize_like_pillow(image, out), _pillow(image, out))


@pytest.mark.parametrize("out", [(31, 47), (130, 90), (64, 20)])
def test_float_path_is_the_same_filter(out: tuple[int, int]) -> None:
    """Two roundings to 8 bits (one a pass, half a level each) and float32 keep the float path this close."""
    image = _noise(64, 80, seed=2)
    difference = (resize(image.float()[None], out)[0] - _pillow(image, out).float()).abs().max()
    assert 0 < difference <= 1.01


def test_same_size_is_untouched() -> None:
    image = _noise(20, 30, seed=3)
    assert resize(image.float(), (20, 30)).equal(image.float())
    assert resize_like_pillow(image, (20, 30)).equal(image)
