"""The packed training set in memory, and batches from it: crops, objects, prompts and targets, made on the device.

Small draws come from one torch.Generator on the CPU; large ones (noise, points) from a generator on the device that is
seeded by it, because 20 million random numbers a step made on the CPU would keep a GPU waiting.
"""

from __future__ import annotations

import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

# Share of draws by set. bsds and coco_panoptic are small but label every region, as "segment anything" asks.
SHARES = {
    "voc": 0.24, "ecssd": 0.06, "ccp": 0.10, "bsds": 0.22, "coco_mval": 0.12, "coco_panoptic": 0.18, "camvid": 0.08,
}  # fmt: skip
IGNORE = 255
SMALLEST = 0.004  # share of the crop an object needs to be asked for
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True, eq=False)
class Packed:
    """images uint8 Nx3xSxS (top-left, zero padded), sizes Nx2 (h, w), maps uint8 MxSxS, owner M, pseudo M, weight M."""

    images: Tensor
    sizes: Tensor
    maps: Tensor
    owner: Tensor
    weight: Tensor
    pseudo: Tensor

    def to(self, device: str) -> Packed:
        """The same set on a device."""
        return Packed(**{k: v.to(device) for k, v in vars(self).items()})

    def shared(self) -> Packed:
        """The same set in memory that several processes see."""
        return Packed(**{k: v.share_memory_() for k, v in vars(self).items()})


def load_packed(path: Path, *, held_out: bool = False, workers: int = 4) -> Packed:
    """Decode the archive that pack.py wrote. Every 40th image is held out of training, for watching it."""
    with zipfile.ZipFile(path) as archive:
        index: list[dict[str, Any]] = json.loads(archive.read("index.json"))
        chosen = [i for i in range(len(index)) if (i % 40 == 7) == held_out]
        blobs = [
            (archive.read(f"{i:05d}.webp"), [archive.read(f"{i:05d}_{k}.png") for k in range(len(index[i]["maps"]))])
            for i in chosen
        ]
    side = max(max(index[i]["size"]) for i in chosen)

    def decode(item: tuple[bytes, list[bytes]]) -> tuple[Tensor, list[Tensor]]:
        image = np.asarray(Image.open(io.BytesIO(item[0])).convert("RGB"))
        canvas = torch.zeros(3, side, side, dtype=torch.uint8)
        canvas[:, : image.shape[0], : image.shape[1]] = torch.from_numpy(image.copy()).permute(2, 0, 1)
        maps = []
        for blob in item[1]:
            labels = np.asarray(Image.open(io.BytesIO(blob)))
            plane = torch.full((side, side), IGNORE, dtype=torch.uint8)
            plane[: labels.shape[0], : labels.shape[1]] = torch.from_numpy(labels.copy())
            maps.append(plane)
        return canvas, maps

    with ThreadPoolExecutor(workers) as pool:
        decoded = list(pool.map(decode, blobs))
    owner, weight, pseudo = [], [], []
    counts = {s: sum(index[i]["set"] == s for i in chosen) for s in SHARES}
    for n, i in enumerate(chosen):
        kinds = index[i]["maps"]
        objects = sum(k == "object" for k in kinds)
        for kind in kinds:
            owner.append(n)
            pseudo.append(kind == "pseudo")
            # object maps share the set's share; pseudo maps are drawn evenly over all images (mixed in by `draw`)
            share = SHARES[index[i]["set"]] / counts[index[i]["set"]] / max(1, objects)
            weight.append(1.0 / len(chosen) if kind == "pseudo" else share)
    return Packed(
        images=torch.stack([d[0] for d in decoded]),
        sizes=torch.tensor([index[i]["size"] for i in chosen]),
        maps=torch.stack([m for d in decoded for m in d[1]]),
        owner=torch.tensor(owner),
        weight=torch.tensor(weight, dtype=torch.float64),
        pseudo=torch.tensor(pseudo),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """pixels BxCxSxS normalised; masks BxKxSxS bool objects; valid Bx1xSxS, 1 where the loss counts."""

    pixels: Tensor
    masks: Tensor
    valid: Tensor


def draw(
    packed: Packed, *, count: int, objects: int, side: int, pseudo: float, gen: torch.Generator, augment: bool = True
) -> Batch:
    """`count` random crops at the model's frame with `objects` objects each; `pseudo` = share of region-map draws."""
    device = packed.images.device
    weight = torch.where(packed.pseudo.cpu(), pseudo * packed.weight.cpu(), (1 - pseudo) * packed.weight.cpu())
    pick = torch.multinomial(weight, count, replacement=True, generator=gen)
    pixels, labels, inside = crops(packed, pick, side=side, gen=gen, augment=augment)
    histogram = count_labels(labels)
    histogram[:, 0] = 0
    histogram[:, IGNORE] = 0
    # objects: uniformly among those large enough; repeated where there are fewer than asked for
    room = inside.flatten(1).sum(1, keepdim=True)
    score = torch.rand(count, 256, generator=gen).to(device)
    score = torch.where(histogram >= SMALLEST * room, score + 1, torch.zeros_like(score))
    ranked = score.topk(objects, dim=1)
    alive = (ranked.values > 0).sum(1, keepdim=True).clamp(min=1)
    slot = torch.arange(objects, device=device)[None] % alive
    ids = ranked.indices.gather(1, slot)
    masks = labels[:, None] == ids[:, :, None, None]
    masks &= (ranked.values.gather(1, slot) > 0)[:, :, None, None]  # a crop without any object teaches nothing
    valid = (labels != IGNORE)[:, None].float()
    return Batch(pixels=pixels, masks=masks, valid=valid)


def count_labels(labels: Tensor) -> Tensor:
    """BxSxS labels 0..255 to Bx256 pixel counts."""
    flat = labels.flatten(1)
    empty = torch.zeros(len(labels), 256, device=labels.device)
    return empty.scatter_add_(1, flat, torch.ones_like(flat, dtype=torch.float32))


def crops(
    packed: Packed, pick: Tensor, *, side: int, gen: torch.Generator, augment: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Random crops of the maps `pick`: normalised pixels Bx3xSxS, labels BxSxS (IGNORE outside), inside Bx1xSxS."""
    device, count = packed.images.device, len(pick)
    owner = packed.owner.cpu()[pick]
    size = packed.sizes.cpu()[owner].float()
    u = torch.rand(count, 6, generator=gen)
    if not augment:
        u[:, 0], u[:, 1], u[:, 4] = 1.0, 0.5, 1.0
    area = torch.exp(np.log(0.35) * (1 - u[:, 0]))  # log-uniform share of the image's sides, 0.35 .. 1
    stretch = torch.exp((u[:, 1] - 0.5) * 0.5)
    crop = torch.stack([(area * stretch).clamp(max=1) * size[:, 0], (area / stretch).clamp(max=1) * size[:, 1]], 1)
    offset = (size - crop) * u[:, 2:4]
    out = (crop / crop.max(1, keepdim=True).values * side).round().clamp(min=8)
    grid = torch.arange(side).float() + 0.5
    y = offset[:, :1] + grid[None] / out[:, :1] * crop[:, :1]
    x = offset[:, 1:] + grid[None] / out[:, 1:] * crop[:, 1:]
    flip = u[:, 4] < 0.5
    x = torch.where(flip[:, None], 2 * offset[:, 1:] + crop[:, 1:] - x, x)
    full = packed.images.shape[-1]
    xy = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), -1) / full * 2 - 1
    inside = ((grid[None, :, None] < out[:, :1, None]) & (grid[None, None, :] < out[:, 1:, None]))[:, None]
    xy, inside = xy.to(device), inside.to(device)
    image = F.grid_sample(packed.images[owner.to(device)].float() / 255, xy, align_corners=False, padding_mode="border")
    labels = F.grid_sample(packed.maps[pick.to(device)][:, None].float(), xy, mode="nearest", align_corners=False)
    labels = torch.where(inside, labels.round(), torch.full_like(labels, float(IGNORE))).long()[:, 0]
    if augment:
        image = jitter(image, gen)
    mean, std = (torch.tensor(v, device=device)[None, :, None, None] for v in (MEAN, STD))
    return (image - mean) / std * inside, labels, inside


def nearby(gen: torch.Generator, device: torch.device) -> torch.Generator:
    """A generator on the device, seeded by the next number of `gen`."""
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, (1,), generator=gen)))


def jitter(image: Tensor, gen: torch.Generator) -> Tensor:
    """Brightness, contrast, saturation, a colour cast, now and then grey or noise: Bx3xSxS in [0, 1]."""
    n = image.shape[0]
    u = torch.rand(n, 8, generator=gen).to(image.device)[:, :, None, None, None]
    image = image * (0.7 + 0.6 * u[:, 0])
    centre = image.mean((2, 3), keepdim=True)
    image = centre + (image - centre) * (0.7 + 0.6 * u[:, 1])
    grey = image.mean(1, keepdim=True)
    image = grey + (image - grey) * torch.where(u[:, 2] < 0.1, torch.zeros_like(u[:, 2]), 0.6 + 0.8 * u[:, 3])
    cast = (torch.rand(n, 3, 1, 1, generator=gen).to(image.device) - 0.5) * 0.12
    noise = torch.randn(image.shape, generator=nearby(gen, image.device), device=image.device) * 0.03 * (u[:, 4] < 0.2)
    return (image + cast + noise).clamp(0, 1)


def random_points(masks: Tensor, *, count: int, gen: torch.Generator) -> Tensor:
    """BxKxSxS bool to BxKxCx2 uniformly random in-mask pixels (x, y); an empty mask gives pixel (0, 0)."""
    flat = masks.flatten(2)
    noise = torch.rand(flat.shape, generator=nearby(gen, masks.device), device=masks.device) * flat
    index = noise.topk(count, dim=2).indices
    side = masks.shape[-1]
    return torch.stack([index % side, index // side], -1).float()


def exact_boxes(masks: Tensor) -> Tensor:
    """BxKxSxS bool to BxKx4 boxes x0, y0, x1, y1 x1 - x0 is the width in pixels; an empty mask gives 1 pixel."""
    side = masks.shape[-1]
    steps = torch.arange(side, device=masks.device)
    spans = []
    for dim in (2, 3):  # any over rows gives columns (x), over columns gives rows (y)
        seen = masks.any(dim)
        low = torch.where(seen, steps, side).amin(-1).clamp(max=side - 1)
        high = torch.where(seen, steps + 1, 0).amax(-1)
        spans.append((low, torch.maximum(high, low + 1)))
    (x0, x1), (y0, y1) = spans
    return torch.stack([x0, y0, x1, y1], -1).float()
