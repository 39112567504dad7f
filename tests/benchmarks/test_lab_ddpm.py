"""The benchmark of lab-ddpm: a model that knows the noise wins by what is left, and tables say what was measured."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("diffusers")

import lab_ddpm

from redsam.defenses.diffusion import Schedule
from redsam.defenses.diffusion_models import Denoiser


class Knows(nn.Module):
    """Predicts the noise exactly when the picture is grey all over: the network of one picture."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule

    def forward(self, x: Tensor, t: int, return_dict: bool) -> tuple[Tensor]:
        return (x / (1 - self.schedule.at(t)) ** 0.5,)


def model() -> Denoiser:
    schedule = Schedule(tuple((1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0).tolist()))
    return Denoiser(
        network=Knows(schedule), schedule=schedule, predicts="epsilon", side=16, stride=1, fingerprint="knows"
    )


def test_noise_of_a_level_is_taken_away() -> None:
    found = model()
    t = lab_ddpm.timestep(found, 25)
    assert lab_ddpm.noise_of(found, t) == pytest.approx(25, abs=0.5)
    grey = torch.full((1, 3, 20, 31), 0.5)
    noisy = grey + lab_ddpm.noise_of(found, t) / 255 * torch.randn(
        grey.shape, generator=torch.Generator().manual_seed(0)
    )
    assert 19 < lab_ddpm.score(grey, noisy) < 21.5
    torch.testing.assert_close(lab_ddpm.denoised(found, noisy, t), grey, atol=1e-5, rtol=0)


def test_the_middle_of_a_picture() -> None:
    image = torch.arange(3 * 6 * 9.0).view(3, 6, 9)
    assert torch.equal(lab_ddpm.middle(image, 4)[0], image[:, 1:5, 2:6])
    assert lab_ddpm.middle(image, 8).shape == (1, 3, 6, 8)


def test_leads_are_paired_and_the_table_has_every_filter() -> None:
    base = [20.0, 25.0, 30.0, 35.0]
    value, low, high = lab_ddpm.interval([b + 1 for b in base], base)
    assert value == low == high == 1.0
    settings = {name: grid[0] for name, grid in lab_ddpm.GRIDS.items()}
    ways = ["noisy", "lab-ddpm", *settings.values()]
    row = {
        "level": 25.0, "t": 58, "n": 4, "best": settings["nlm"], "lead": [1.0, 0.5, 1.5], "settings": settings,
        "psnr": {key: lab_ddpm.interval([b + i for b in base]) for i, key in enumerate(ways)},
    }  # fmt: skip
    cost = [{"purifier": "zip", "gradient": g, "seconds": 2.0, "wall": 2.0, "mib": 80} for g in (False, True)]
    text = lab_ddpm.markdown({"rows": [row], "cost": cost})
    assert "4 photographs" in text and "| 25.0 | 58 | 27.50 | 28.50 [" in text and "1.00 [0.50, 1.50]" in text
    assert "| zip | 2.0 | 80 | 2.0 | 80 |" in text
