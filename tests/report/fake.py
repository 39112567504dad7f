"""A finished run without a model: made-up masks on given pictures, their true IoU, and a summary computed from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco
from scipy import ndimage

Scene = tuple[str, NDArray[np.uint8], NDArray[np.bool_]]
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


def bootstrap(values: Sequence[Sequence[float]], seed: int = 0) -> tuple[float, float, float]:
    sums, counts = np.array([sum(v) for v in values]), np.array([len(v) for v in values])
    weights = np.random.default_rng(seed).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=500)
    means = (weights @ sums) / np.maximum(1, weights @ counts)
    return float(sums.sum() / counts.sum()), *(float(v) for v in np.quantile(means, [0.025, 0.975]))


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
) -> Path:
    """Write OUT as an audit would. quality: boundary noise of the clean masks. failed: (sample, reason) in every cell."""
    pictures = scenes() if pictures is None else pictures
    (out / "images").mkdir(parents=True, exist_ok=True)
    for i, (_, image, _) in enumerate(pictures):
        Image.fromarray(image).save(out / "images" / f"p{i}.png")
    rows: list[dict[str, Any]] = []
    for protocol in ("point", "box"):
        for attack in attacks:
            for level in levels:
                rows += _cell(out, pictures, model, protocol, attack, level, quality, failed, truth, done)
    failures = [
        {"cell": c, "sample": s, "status": "failed", "reason": r} for c in dict.fromkeys(r["cell"] for r in rows) for s, r in failed
    ]
    summary = {
        "schema": 1, "cells": rows, "contrasts": _contrasts(rows), "failures": failures,
        "env": {"redsam": "0.1.0", "python": "3.11.2", "packages": {"torch": "2.13.0"}, "device": "cpu"},
    }  # fmt: skip
    (out / "summary.json").write_text(json.dumps(summary))
    return out


def _cell(
    out: Path, pictures: Sequence[Scene], model: str, protocol: str, attack: str, level: int, quality: float,
    failed: Sequence[tuple[str, str]], truth: bool, done: bool,
) -> list[dict[str, Any]]:  # fmt: skip
    cell = f"{abs(hash((model, protocol, attack, level))):016x}"[:16]
    folder = out / "records" / cell
    (folder / "images").mkdir(parents=True, exist_ok=True)
    eps, power = level / 255, STRENGTH[attack] * (1 - np.exp(-level / 3)) * (0.75 if protocol == "box" else 1.0)
    threat = {"norm": "linf", "eps": eps, "space": "image", "region": "all", "knowledge": "white-box", "lattice": True}
    spec = {
        "schema": 1, "model": {"name": model, "family": "sam", "fingerprint": "0123456789abcdef"},
        "probe": {"kind": "attack", "name": attack, "args": {"steps": 40, "objective": "vanish"}}, "threat": threat,
        "data": {"name": "demo", "fingerprint": "aa"}, "protocol": {"name": protocol, "args": {"max_objects": 5}}, "seed": 0,
    }  # fmt: skip
    (folder / "spec.json").write_text(json.dumps(spec))
    clean_iou: list[list[float]] = []
    adv_iou: list[list[float]] = []
    stable: list[list[float]] = []
    lines = []
    for i, (name, image, masks) in enumerate(pictures):
        rng = np.random.default_rng([i, level, len(attack), len(protocol)])
        steady = np.random.default_rng([i, len(protocol)])
        noise = ndimage.gaussian_filter(rng.standard_normal(image.shape), (1, 1, 0))
        adv = np.clip(image.astype(int) + np.round(level * np.sign(noise)).astype(int), 0, 255).astype(np.uint8)
        Image.fromarray(adv).save(folder / "images" / f"p{i}.png")
        prompts = []
        for k, mask in enumerate(masks):
            before = blurred(mask, quality * (0.6 if protocol == "box" else 1.0), steady)
            after = blurred(mask, power * rng.uniform(0.5, 2.2), rng)
            ys, xs = np.nonzero(mask)
            at = rng.integers(len(ys))
            geometry: dict[str, Any] = {"kind": "point", "points": [[float(xs[at]), float(ys[at])]], "labels": [1]}
            if protocol == "box":
                geometry = {"kind": "box", "box": [float(v) for v in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)]}
            prompts.append(
                {
                    "prompt": k, "kind": protocol, "object": k, "area": float(mask.mean()), "geometry": geometry,
                    "iou_clean_gt": iou(before, mask) if truth else None, "iou_adv_gt": iou(after, mask) if truth else None,
                    "iou_adv_clean": iou(before, after), "rle_gt": rle(mask) if truth else None,
                    "rle_clean": rle(before), "rle_adv": rle(after),
                }  # fmt: skip
            )
        clean_iou.append([p["iou_clean_gt"] if truth else 1.0 for p in prompts])
        adv_iou.append([p["iou_adv_gt"] if truth else p["iou_adv_clean"] for p in prompts])
        stable.append([p["iou_adv_clean"] for p in prompts])
        lines.append(
            {
                "schema": 1, "cell": cell, "sample": name, "status": "ok", "reason": None, "height": image.shape[0],
                "width": image.shape[1], "linf": eps, "psnr": 32.0, "steps": 40, "image": f"images/p{i}.png",
                "clean_image": f"images/p{i}.png", "prompts": prompts,
            }  # fmt: skip
        )
    lines += [{"schema": 1, "cell": cell, "sample": s, "status": "failed", "reason": r, "prompts": []} for s, r in failed]
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if done:
        (folder / "DONE").touch()
    if not pictures:
        return [_row(cell, model, attack, threat, protocol, "ground truth", [], [], len(failed))]
    if not truth:
        return [_row(cell, model, attack, threat, protocol, "clean prediction", clean_iou, adv_iou, len(failed))]
    ones = [[1.0] * len(v) for v in stable]
    return [
        _row(cell, model, attack, threat, protocol, "ground truth", clean_iou, adv_iou, len(failed)),
        _row(cell, model, attack, threat, protocol, "clean prediction", ones, stable, len(failed)),
    ]


def _row(
    cell: str, model: str, attack: str, threat: dict[str, Any], protocol: str, reference: str,
    clean: list[list[float]], adv: list[list[float]], n_failed: int,
) -> dict[str, Any]:  # fmt: skip
    row: dict[str, Any] = {
        "cell": cell, "model": model, "attack": attack, "threat": threat, "eps": threat["eps"], "protocol": protocol,
        "prompt_kind": protocol, "reference": reference, "n_prompts": sum(map(len, adv)), "n_images": len(adv),
        "n_failed": n_failed, "psnr": 32.0, "ssim": 0.9, "linf_max": threat["eps"], "seconds": 1.5, "peak_mb": 100.0,
    }  # fmt: skip
    delta = [[y - x for x, y in zip(a, b, strict=True)] for a, b in zip(clean, adv, strict=True)]
    hit = {f"asr{t}": [[float(v <= t / 100) for v in vs] for vs in adv] for t in (50, 10)}
    for name, values in {"miou_clean": clean, "miou_adv": adv, "delta": delta, **hit}.items():
        row |= dict(zip((name, f"{name}_lo", f"{name}_hi"), bootstrap(values) if values else (None,) * 3, strict=True))
    return row


def _contrasts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Box minus point, with an interval that pretends both were independent."""
    out = []
    for a in rows:
        for b in rows:
            same = all(a[k] == b[k] for k in ("model", "attack", "eps", "reference"))
            if same and (a["protocol"], b["protocol"]) == ("box", "point") and a["miou_adv"] is not None:
                delta = a["miou_adv"] - b["miou_adv"]
                out.append(
                    {
                        "model": a["model"], "attack": a["attack"], "eps": a["eps"], "threat": a["threat"], "a": "box",
                        "b": "point", "reference": a["reference"], "delta": delta, "delta_lo": delta - 0.06,
                        "delta_hi": delta + 0.05, "n_images": a["n_images"],
                    }  # fmt: skip
                )
    return out
