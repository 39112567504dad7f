"""The bundled diffusion model: diffusers alone reads it, and it takes noise away better than the classic filters."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from redsam.defenses import parse
from redsam.defenses.diffusion_models import BUNDLED, denoiser
from redsam.defenses.diffusion_tiles import canvas, enlarge, tiled
from redsam.metrics.images import psnr
from redsam.models.lab import WEIGHTS, lab_names

diffusers = pytest.importorskip("diffusers")


def test_diffusers_alone_reads_it() -> None:
    folder = WEIGHTS / BUNDLED
    pipeline = diffusers.DDPMPipeline.from_pretrained(folder, use_safetensors=True)
    found = denoiser(BUNDLED)
    for one, other in zip(pipeline.unet.state_dict().values(), found.network.state_dict().values(), strict=True):
        assert torch.equal(one.float(), other)
    assert found.schedule.abar == tuple(pipeline.scheduler.alphas_cumprod.double().tolist())
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    assert weights.stat().st_size < 16 * 2**20 and (folder / "README.md").is_file()


def test_it_is_no_model_to_segment_with() -> None:
    assert BUNDLED not in lab_names()


@pytest.mark.parametrize("t", [20, 57, 115])
def test_it_takes_noise_away_better_than_filters(photographs: Tensor, t: int) -> None:
    """Of photographs that are in no training set; each filter at the best of three settings, chosen on them."""
    found = denoiser(BUNDLED)
    keep = found.schedule.at(t)
    sigma = math.sqrt((1 - keep) / keep) / 2
    noisy = photographs + sigma * torch.randn(photographs.shape, generator=torch.Generator().manual_seed(0))
    size = canvas(*photographs.shape[-2:], tile=found.side)
    predict = tiled(lambda x, step: found.noise(found.network, x, step), size, tile=found.side)
    ours = 0.0
    with torch.no_grad():
        for image, clean in zip(noisy, photographs, strict=True):
            x = math.sqrt(keep) * enlarge(2 * image[None] - 1, size)
            guess = (found.schedule.guess(x, t, predict(x, t))[..., : image.shape[1], : image.shape[2]] + 1) / 2
            ours += float(psnr(guess.clamp(0, 1), clean[None])) / len(noisy)
    settings = [f"median:size={s}" for s in (2, 3, 5)] + [
        f"bilateral:colour={c}" for c in (2 * sigma, 4 * sigma, 8 * sigma)
    ]
    filtered = [parse(s).purify(noisy, [torch.Generator()] * len(noisy)).clamp(0, 1) for s in settings]
    assert ours > max(float(psnr(f, photographs).mean()) for f in filtered) + 0.5
