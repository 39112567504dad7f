"""lab-ddpm: a small unconditional diffusion model of photographs in diffusers' own architecture, so that diffusers
alone loads it (`DDPMPipeline.from_pretrained`) and redsam's `diffpure` and `zip` purify with it.

Ho, Jain & Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020: x_t = sqrt(abar_t) x + sqrt(1 - abar_t)
eps, and the network is taught eps by squared error. Deviation: t is not drawn evenly but as 1000 u^2, u uniform,
because purifiers mostly ask about little noise: a third of the draws lies below t = 100 and two thirds below 400. The
rest is still taught, since `zip` as published starts at t = 1000.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from PIL import Image
from torch import Tensor

NAME = "lab-ddpm"
# Longest sides of the photographs in memory, drawn evenly: purifiers see pictures of many scales.
LEAST, MOST = 192, 384
HELD_OUT = 40  # every 40th photograph is not trained on, as in packed.py
WATCHED = (10, 30, 100, 300)  # timesteps at which held-out photographs are denoised


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Architecture and optimisation. Without attention: a tile's cost grows with its pixels and any size will do."""

    channels: tuple[int, ...] = (32, 64, 128)
    layers: int = 1
    groups: int = 8
    side: int = 48
    batch: int = 8
    lr: float = 1e-3
    seed: int = 0

    def build(self) -> Any:
        """A fresh network, started from the recipe's seed."""
        depth = len(self.channels)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return UNet2DModel(
                sample_size=self.side, in_channels=3, out_channels=3, layers_per_block=self.layers,
                block_out_channels=self.channels, down_block_types=("DownBlock2D",) * depth,
                up_block_types=("UpBlock2D",) * depth, norm_num_groups=self.groups, add_attention=False,
            )  # fmt: skip


RECIPE = Recipe()


def scheduler() -> Any:
    """The schedule of Ho et al. and of ZIP: beta from 1e-4 to 0.02 in a line, 1000 timesteps."""
    return DDPMScheduler(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear")


@dataclass(frozen=True, kw_only=True, eq=False)
class Photographs:
    """Many pictures of many sizes in one uint8 tensor, each HxWx3 from `starts` on; sizes are (h, w); sets: the
    set that each is from."""

    pixels: Tensor
    starts: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    sets: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.sizes)

    def crop(self, i: int, top: int, left: int, side: int) -> Tensor:
        """uint8 3 x side x side."""
        height, width = self.sizes[i]
        whole = self.pixels[self.starts[i] : self.starts[i] + height * width * 3].view(height, width, 3)
        return whole[top : top + side, left : left + side].permute(2, 0, 1)


def load_photographs(source: Path, *, least: int, held_out: bool = False) -> Photographs:
    """The photographs (WebP) of a folder of folders, or of what pack.py wrote; none smaller than `least` on any side.
    Each is made smaller by a factor that its place in the list decides."""
    found: list[np.ndarray] = []
    sets: list[str] = []
    for number, (group, file) in enumerate(_files(source)):
        if (number % HELD_OUT == 7) != held_out:
            continue
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
        longest = max(picture.size)
        wanted = LEAST + (MOST - LEAST) * float(np.random.default_rng(number).random())
        factor = max(min(wanted / longest, 1.0), least / min(picture.size))
        size = tuple(max(round(n * factor), least) for n in picture.size)
        sets.append(group)
        found.append(np.asarray(picture.resize(size, Image.Resampling.BICUBIC)))
    if not found:
        raise SystemExit(f"no photographs in {source}")
    lengths = [a.size for a in found]
    pixels = torch.from_numpy(np.concatenate([a.reshape(-1) for a in found]))
    starts = tuple(int(v) for v in np.cumsum([0, *lengths[:-1]]))
    sizes = tuple((a.shape[0], a.shape[1]) for a in found)
    return Photographs(pixels=pixels, starts=starts, sizes=sizes, sets=tuple(sets))


def _files(source: Path) -> list[tuple[str, Any]]:
    """(set, file) of every photograph, in a fixed order."""
    if source.is_dir():
        return [(file.parent.name, file) for file in sorted(source.glob("*/*.webp"))]
    with zipfile.ZipFile(source) as archive:
        sets = [item["set"] for item in json.loads(archive.read("index.json"))]
        return [(name, io.BytesIO(archive.read(f"{i:05d}.webp"))) for i, name in enumerate(sets)]


def draw(photographs: Photographs, *, count: int, side: int, gen: torch.Generator) -> Tensor:
    """Random crops, half of them mirrored: float32 count x 3 x side x side in [-1, 1]."""
    out = []
    for i in torch.randint(len(photographs), (count,), generator=gen).tolist():
        height, width = photographs.sizes[i]
        down, right, flip = torch.rand(3, generator=gen, dtype=torch.float64).tolist()
        crop = photographs.crop(i, int(down * (height - side + 1)), int(right * (width - side + 1)), side)
        out.append(crop.flip(-1) if flip < 0.5 else crop)
    return torch.stack(out).float() / 127.5 - 1


def loss_of(model: Any, noise: Any, images: Tensor, *, gen: torch.Generator) -> Tensor:
    """Squared error of the predicted noise. images: in [-1, 1]; noise: the scheduler."""
    last = noise.config.num_train_timesteps
    t = (last * torch.rand(len(images), generator=gen).square()).long()
    eps = torch.randn(images.shape, generator=gen).to(images)
    t = t.to(images.device)
    return F.mse_loss(model(noise.add_noise(images, eps, t), t).sample, eps)


@torch.no_grad()
def held_out_score(model: Any, noise: Any, images: Tensor) -> dict[str, float]:
    """PSNR in dB, in [0, 1] units, of x0 guessed in one step from x_t: the same draws every time."""
    gen = torch.Generator().manual_seed(17)
    eps = torch.randn(images.shape, generator=gen).to(images)
    out = {}
    for step in WATCHED:
        t = torch.full((len(images),), step, device=images.device)
        keep = noise.alphas_cumprod[step].to(images)
        noisy = noise.add_noise(images, eps, t)
        guess = ((noisy - (1 - keep).sqrt() * model(noisy, t).sample) / keep.sqrt()).clamp(-1, 1)
        error = ((guess - images) / 2).square().mean((1, 2, 3))
        out[f"psnr_{step}"] = round(float(-10 * error.log10().mean()), 3)
    return out


def ship(model: Any, noise: Any, folder: Path, made: str) -> None:
    """The folder of a DDPMPipeline, weights in half precision; made: what goes into training.json."""
    folder.mkdir(parents=True, exist_ok=True)
    half = UNet2DModel.from_config(model.config)
    half.load_state_dict(model.state_dict())
    DDPMPipeline(unet=half.half(), scheduler=noise).save_pretrained(folder, safe_serialization=True)
    part = folder / "training.json.tmp"
    part.write_text(made)
    os.replace(part, folder / "training.json")
