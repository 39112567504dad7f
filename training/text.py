"""lab-text: what it is made of, what a step draws, and what it is taught.

A step shows each crop K names: some that are on it, some that are not. Present: mask loss and predicted IoU. All:
presence. Absent names come from the crop's own set where that is annotated completely (voc, camvid, ccp); for
coco_mval, whose files mark one object each, from names of other sets and of COCO that share no word with what is
marked: now and then one of those is there and unmarked, which the smoothing of the presence target allows for.

Beside the queries every cell of the feature map is named among all names of its set: cross-entropy of its feature with
the first prompt token of each name. It adds no weights and next to no time, and it tells the encoder of all classes at
every step where a handful of queries would tell it of a handful.
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
from names import ALIASES, VALUES, same
from objective import mask_loss, true_iou
from packed import IGNORE, SMALLEST, Packed, count_labels, crops
from PIL import Image
from recipes import RECIPES, Recipe
from safetensors.torch import load_file
from torch import Tensor

from redsam.models import initialise
from redsam.models.lab_text_net import LabText, LabTextConfig

SHARES = {"voc": 0.40, "coco_mval": 0.28, "ccp": 0.20, "camvid": 0.12}
QUERIES = 4  # names a crop is asked for, half of them absent where so many are present
ALIAS, PLURAL = 0.25, 0.1  # how often another word, or an s, stands in
SMOOTH = 0.02
DENSE, SHARPNESS, NOTHING = 0.5, 0.25, 0.3  # weight of naming cells, scale of its logits, weight of unnamed cells
RECIPE = Recipe(name="lab-text", family="lab-text", config=RECIPES["lab-b"].config, batch=16, lr=1e-3, seed=4)


def build(start: Path | None) -> LabText:
    """A fresh LabText in lab-b's size; start: a lab model's folder whose encoder and decoder it takes over."""
    config = LabTextConfig(sam={k: v for k, v in RECIPE.config.items() if k != "prompt_encoder_config"})
    model = LabText(config)
    initialise(model, seed=RECIPE.seed)
    torch.nn.init.normal_(model.text_encoder.table.weight, std=0.1, generator=torch.Generator().manual_seed(4))
    if start is not None:
        state = {k: v.float() for k, v in load_file(start / "model.safetensors").items()}
        own = model.state_dict()
        own |= {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
        own["no_mask.weight"] = state["prompt_encoder.no_mask_embed.weight"]
        model.load_state_dict(own)
    model.shared_image_embedding.positional_embedding.requires_grad_(False)
    return model


@dataclass(frozen=True, kw_only=True, eq=False)
class Named:
    """The packed photographs with maps of name indices. names[i - 1] is index i. groups: the set of each image.
    vocabulary: indices that an image of each set may hold."""

    packed: Packed
    names: tuple[str, ...]
    groups: tuple[str, ...]
    complete: tuple[bool, ...]
    vocabulary: dict[str, tuple[int, ...]]


def load_named(path: Path, *, held_out: bool = False, workers: int = 4) -> Named:
    """Decode what pack_text.py wrote. Photographs marked as held out (a fortieth of them) are for watching only."""
    with zipfile.ZipFile(path) as archive:
        index: dict[str, Any] = json.loads(archive.read("index.json"))
        chosen = [i for i, item in enumerate(index["items"]) if item["held_out"] == held_out]
        blobs = [(archive.read(f"{i:05d}.webp"), archive.read(f"{i:05d}.png")) for i in chosen]
    items = [index["items"][i] for i in chosen]
    side = max(max(item["size"]) for item in items)

    def decode(pair: tuple[bytes, bytes]) -> tuple[Tensor, Tensor]:
        image = torch.from_numpy(np.asarray(Image.open(io.BytesIO(pair[0])).convert("RGB")).copy()).permute(2, 0, 1)
        plane = torch.from_numpy(np.asarray(Image.open(io.BytesIO(pair[1]))).copy())
        room = (0, side - image.shape[2], 0, side - image.shape[1])
        return F.pad(image, room), F.pad(plane, room, value=IGNORE)

    with ThreadPoolExecutor(workers) as pool:
        decoded = list(pool.map(decode, blobs))
    counts = {group: sum(item["set"] == group for item in items) for group in SHARES}
    weight = [SHARES[item["set"]] / counts[item["set"]] for item in items]
    number = {name: i for i, name in enumerate(index["names"], 1)}
    vocabulary = {group: tuple(number[n] for n in names if n in number) for group, names in VALUES.items()}
    others = [torch.unique(plane) for item, (_, plane) in zip(items, decoded, strict=True) if not item["complete"]]
    seen = sorted(set(torch.cat(others).tolist()) - {0, IGNORE}) if others else []
    vocabulary |= {group: tuple(seen) for group in SHARES if group not in VALUES}
    packed = Packed(
        images=torch.stack([image for image, _ in decoded]),
        sizes=torch.tensor([item["size"] for item in items]),
        maps=torch.stack([plane for _, plane in decoded]),
        owner=torch.arange(len(items)),
        weight=torch.tensor(weight, dtype=torch.float64),
        pseudo=torch.zeros(len(items), dtype=torch.bool),
    )
    return Named(
        packed=packed,
        names=tuple(index["names"]),
        groups=tuple(item["set"] for item in items),
        complete=tuple(bool(item["complete"]) for item in items),
        vocabulary=vocabulary,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class TextBatch:
    """pixels Bx3xSxS; texts: B lists of K; masks BxKxSxS bool (empty: absent); valid Bx1xSxS; labels BxSxS of name
    indices; images: B indices into the set."""

    pixels: Tensor
    texts: list[list[str]]
    masks: Tensor
    valid: Tensor
    labels: Tensor
    images: list[int]


def draw(named: Named, *, count: int, side: int, gen: torch.Generator, augment: bool = True) -> TextBatch:
    """`count` random crops with QUERIES names each."""
    pick = torch.multinomial(named.packed.weight.cpu(), count, replacement=True, generator=gen)
    pixels, labels, inside = crops(named.packed, pick, side=side, gen=gen, augment=augment)
    floor = SMALLEST * inside.flatten(1).sum(1).cpu()
    seen = count_labels(labels).cpu()
    texts, ids = [], []
    for row, image in enumerate(pick.tolist()):
        marked = [i for i in range(1, IGNORE) if float(seen[row, i]) > 0]
        large = [i for i in marked if float(seen[row, i]) >= float(floor[row])]
        asked = [large[j] for j in torch.randperm(len(large), generator=gen).tolist()][: QUERIES // 2 + 1]
        missing = absent(named, image, marked)
        more = torch.randperm(len(missing), generator=gen).tolist()[: QUERIES - len(asked)]
        chosen = [(i, named.names[i - 1]) for i in asked] + [(-1, missing[j]) for j in more]
        chosen = (chosen * QUERIES)[:QUERIES]  # a set of eleven classes may not have as many that are absent
        texts.append([spoken(name, gen) if augment else name for _, name in chosen])
        ids.append([i for i, _ in chosen])
    wanted = torch.tensor(ids, device=labels.device)
    masks = labels[:, None] == wanted[:, :, None, None]
    valid = (labels != IGNORE)[:, None].float()
    return TextBatch(pixels=pixels, texts=texts, masks=masks, valid=valid, labels=labels, images=pick.tolist())


def absent(named: Named, image: int, marked: list[int]) -> list[str]:
    """Names that are not on this photograph as far as its annotation can tell."""
    present = [named.names[i - 1] for i in marked]
    group = named.groups[image]
    pool = VALUES[group] if named.complete[image] else named.names
    # What is on the photograph but was cropped away is absent from the crop; a name that means the same is not.
    return [name for name in pool if not any(same(name, other) for other in present)]


def spoken(name: str, gen: torch.Generator) -> str:
    """The name, another word for it, or its plural."""
    u = torch.rand(3, generator=gen)
    others = ALIASES.get(name, ())
    if others and float(u[0]) < ALIAS:
        name = others[int(u[1] * len(others))]
    return f"{name}s" if float(u[2]) < PLURAL and not name.endswith("s") else name


def naming_loss(model: LabText, features: Tensor, batch: TextBatch, named: Named) -> tuple[Tensor, float]:
    """Cross-entropy of every cell's name among those of its set, and the share of named cells that are right.

    An unnamed cell is "nothing" (logit 0) where the set marks all its classes, and not asked where it does not."""
    rows = [named.vocabulary[named.groups[i]] for i in batch.images]
    union = sorted(set().union(*rows))
    tokens = model.text_encoder([named.names[i - 1] for i in union])[:, 0].float()
    logits = SHARPNESS * torch.einsum("bchw,vc->bvhw", features.float(), tokens)
    place = torch.full((IGNORE + 1,), -100)
    place[union] = torch.arange(1, len(union) + 1)
    able = torch.zeros(len(rows), len(union) + 1, dtype=torch.bool)
    targets = []
    step = batch.labels.shape[-1] // features.shape[-1]
    cells = batch.labels[:, step // 2 :: step, step // 2 :: step].cpu()
    for row, indices in enumerate(rows):
        complete = named.complete[batch.images[row]]
        able[row, place[list(indices)]] = True
        able[row, 0] = complete
        place[0] = 0 if complete else -100
        targets.append(place[cells[row]])
    target = torch.stack(targets).to(features.device)
    logits = torch.cat([torch.zeros_like(logits[:, :1]), logits], 1)
    logits = logits.masked_fill(~able.to(features.device)[:, :, None, None], -1e4)
    losses = F.cross_entropy(logits, target, reduction="none", ignore_index=-100)
    weight = torch.where(target == 0, NOTHING, 1.0) * (target >= 0)
    right = (logits.detach()[:, 1:].argmax(1) + 1 == target) & (target > 0)
    share = float(right.sum() / (target > 0).sum().clamp(min=1))
    return (losses * weight).sum() / weight.sum().clamp(min=1), share


def loss_of(model: LabText, batch: TextBatch, named: Named) -> tuple[Tensor, dict[str, float]]:
    """One step's loss and a few numbers for the log."""
    features = model.embed(batch.pixels)
    logits, iou, presence = model.decode(features, batch.texts)
    logits, iou, presence = logits.float(), iou.float(), presence.float()
    factor = batch.pixels.shape[-1] // logits.shape[-1]
    target = F.avg_pool2d(batch.masks.float(), factor)
    weight = F.avg_pool2d(batch.valid, factor)
    here = batch.masks.flatten(2).any(-1).float()
    masks = mask_loss(logits[:, :, None], target[:, :, None], weight[:, :, None])[..., 0]
    truth = true_iou(logits.detach()[:, :, None], target[:, :, None], weight[:, :, None])[..., 0]
    smooth = here * (1 - 2 * SMOOTH) + SMOOTH
    there = F.binary_cross_entropy_with_logits(presence, smooth)
    alive = here.sum().clamp(min=1)
    quality = ((iou - truth).square() * here).sum() / alive
    naming, cells = naming_loss(model, features, batch, named)
    total = (masks * here).sum() / alive + 2 * there + quality + DENSE * naming
    right = ((presence.detach() > 0) == (here > 0)).float().mean()
    log = {
        "iou": float((truth * here).sum() / alive.detach()),
        "presence": float(right),
        "presence_loss": float(there.detach()),
        "cells": cells,
    }
    return total, log
