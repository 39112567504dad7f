"""A finished run without a model: made-up masks on given pictures, their true IoU as records, and the summary."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco
from scipy import ndimage

from redsam.bench import summarise
from redsam.bench.spec import Cell
from redsam.threat import Threat

Scene = tuple[str, NDArray[np.uint8], NDArray[np.bool_]]
ARGS = {"steps": 40, "objective": "vanish"}
STRENGTH = {"fgsm": 0.35, "mifgsm": 0.7, "pgd": 1.0}


def scenes(count: int = 6, size: tuple[int, int] = (60, 90)) -> list[Scene]:
    """Gradients with two discs on them."""
    out: list[Scene] = []
    y, x = np.mgrid[: size[0], : size[1]]
    for i in range(count):
        masks = np.stack([(y - 28) ** 2 + (x - 22 - i) ** 2 < 200, (y - 34) ** 2 + (x - 62 + i) ** 2 < 150 + 10 * i])
        image = np.stack([x * 255 // size[1], y * 255 // size[0], np.full_like(x, 40 * i % 255)], axis=-1)
        for k, mask in enumerate(masks):
            image[mask] = (220 - 60 * k, 90 + 20 * i, 60 + 80 * k)
        out.append((f"scene_{i}", image.astype(np.uint8), masks))
    return out


def rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    code = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(v) for v in code["size"]], "counts": code["counts"].decode()}


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    union = int((a | b).sum())
    return float((a & b).sum() / union) if union else 1.0


def blurred(mask: NDArray[np.bool_], amount: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """The mask after its boundary moved at random; more the larger `amount` (a share of the object's own size)."""
    radius = np.sqrt(mask.sum() / np.pi)
    depth = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    noise = ndimage.gaussian_filter(rng.standard_normal(mask.shape), radius / 3 + 1)
    shift = noise / (noise.std() + 1e-9) * radius * amount * 0.5 - amount * radius * 0.6
    return np.asarray(depth + shift > 0)


def make_run(
    out: Path,
    pictures: Sequence[Scene] | None = None,
    *,
    model: str = "lab-b",
    attacks: Sequence[str] = ("fgsm", "pgd"),
    levels: Sequence[int] = (2, 8),
    quality: float = 0.25,
    failed: Sequence[tuple[str, str]] = (),
    truth: bool = True,
    done: bool = True,
    weather: Mapping[str, Sequence[int]] | None = None,
) -> Path:
    """Write OUT as an audit would. quality: noise of the clean masks. failed: (sample, reason) in every cell. weather:
    severities of each corruption; its cells have darkened pictures and masks that suffer alike."""
    pictures = scenes() if pictures is None else pictures
    (out / "images").mkdir(parents=True, exist_ok=True)
    for i, (_, image, _) in enumerate(pictures):
        Image.fromarray(image).save(out / "images" / f"p{i}.png")
    for protocol in ("point", "box"):
        _cell(out, pictures, model, protocol, None, 0, quality, failed, truth, done)
        for attack in attacks:
            for level in levels:
                _cell(out, pictures, model, protocol, attack, level, quality, failed, truth, done)
        for name, severities in (weather or {}).items():
            for severity in severities:
                _cell(out, pictures, model, protocol, name, severity, quality, failed, truth, done, natural=True)
    summarise(out)
    return out


def _cell(
    out: Path, pictures: Sequence[Scene], model: str, protocol: str, attack: str | None, level: int, quality: float,
    failed: Sequence[tuple[str, str]], truth: bool, done: bool, natural: bool = False,
) -> None:  # fmt: skip
    eps = level / 255
    power = (
        STRENGTH.get(attack or "", 0.5 if natural else 0.0)
        * (1 - np.exp(-level / 3))
        * (0.75 if protocol == "box" else 1.0)
    )
    cell = Cell(
        model={"name": model, "family": "sam", "fingerprint": "0123456789abcdef"},
        probe={"kind": "corruption", "name": attack, "args": {"severity": level}}
        if natural
        else {"kind": "attack" if attack else "none", "name": attack or "none", "args": ARGS if attack else {}},
        threat=Threat(eps=eps).to_dict() if attack and not natural else None,
        data={"name": "made-up", "fingerprint": "aa", "ids_hash": "bb"},
        protocol={"name": protocol, "args": {"max_objects": 5}},
    )
    folder = out / "records" / cell.id
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "spec.json").write_text(json.dumps(cell.spec()))
    (folder / "env.json").write_text(json.dumps({"redsam": "0.1.0", "packages": {"torch": "2.13.0"}, "device": "cpu"}))
    lines = []
    for i, (name, image, masks) in enumerate(pictures):
        rng = np.random.default_rng([i, level, len(attack or ""), len(protocol)])
        steady = np.random.default_rng([i, len(protocol)])
        noise = ndimage.gaussian_filter(rng.standard_normal(image.shape), (1, 1, 0))
        adv = np.clip(image.astype(int) + np.round(level * np.sign(noise)).astype(int), 0, 255).astype(np.uint8)
        if natural:
            adv = (image * (1 - 0.15 * level)).astype(np.uint8)
        if attack:
            Image.fromarray(adv).save(folder / "images" / f"p{i}.png")
        prompts = []
        for k, mask in enumerate(masks):
            before = blurred(mask, quality * (0.6 if protocol == "box" else 1.0), steady)
            after = blurred(mask, power * rng.uniform(0.5, 2.2), rng) & (rng.random() < 0.9) if attack else before
            ys, xs = np.nonzero(mask)
            at = rng.integers(len(ys))
            geometry: dict[str, Any] = {"kind": "point", "points": [[float(xs[at]), float(ys[at])]], "labels": [1]}
            if protocol == "box":
                geometry = {"kind": "box", "box": [float(v) for v in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)]}
            overlaps = {
                "iou_clean_gt": iou(before, mask) if truth else None, "iou_adv_gt": iou(after, mask) if truth else None,
                "iou_adv_clean": iou(before, after),
            }  # fmt: skip
            prompts.append(
                {"prompt": k, "kind": protocol, "object": k, "area": float(mask.mean()), "geometry": geometry}
                | overlaps
                | {f"b{key}": value for key, value in overlaps.items()}
                | {"rle_gt": rle(mask) if truth else None, "rle_clean": rle(before)}
                | {"rle_adv": rle(after) if attack else None}
            )
        lines.append(
            {
                "schema": 1,
                "cell": cell.id,
                "sample": name,
                "status": "ok",
                "reason": None,
                "height": image.shape[0],
                "width": image.shape[1],
                "linf": eps,
                "l2": eps,
                "l0": level,
                "psnr": 32.0,
                "ssim": 0.9,
                "steps": 40,
                "seconds": 0.5,
                "peak_mb": 100.0,
                "image": f"images/p{i}.png" if attack else None,
                "clean_image": f"images/p{i}.png",
                "prompts": prompts,
            }  # fmt: skip
        )
    lines += [
        {"schema": 1, "cell": cell.id, "sample": s, "status": "failed", "reason": r, "prompts": []} for s, r in failed
    ]
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if done:
        (folder / "DONE").touch()
