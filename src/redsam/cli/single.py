"""One attack on one photograph, written down: what `redsam attack` does between parsing and printing."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redsam.attacks.base import Attack
    from redsam.models.base import Segmenter
    from redsam.prompts import Prompt
    from redsam.threat import Threat

RESULT_SCHEMA = 1


def attack_one(
    segmenter: Segmenter,
    attack: Attack,
    image: Path,
    prompts: Sequence[Prompt],
    *,
    threat: Threat,
    seed: int,
    out: Path,
) -> dict[str, Any]:
    """Attack one file, write adversarial.png, the masks, figure.png and result.json into `out`, return the result.

    IoU is between the prediction on the clean image and the one on the delivered 8-bit image, mask picked by predicted
    IoU. All prompts are attacked by the one adversarial image.
    """
    from redsam import __version__
    from redsam.data import read_image, write_png
    from redsam.metrics import iou, psnr, ssim
    from redsam.registry import spec_of
    from redsam.report.figure import attack_figure
    from redsam.types import from_uint8, to_uint8

    clean = read_image(image)
    batch = clean[None].to(segmenter.device)
    started = time.perf_counter()
    delivered = attack.run(segmenter, batch, [list(prompts)], threat=threat, seeds=[seed])
    seconds = time.perf_counter() - started
    adversarial = delivered.images[0].cpu()
    seen = from_uint8(adversarial)
    before = segmenter.predict(batch, [list(prompts)])[0]
    settled = list(prompts) if delivered.prompts is None else list(delivered.prompts[0])
    after = segmenter.predict(seen[None].to(segmenter.device), [settled])[0]
    overlap = iou(before.masks, after.masks).tolist()

    write_png(out / "adversarial.png", adversarial)
    rows: list[dict[str, Any]] = []
    for i, prompt in enumerate(prompts):
        files = {"clean_mask": f"clean_mask_{i}.png", "adversarial_mask": f"adversarial_mask_{i}.png"}
        write_png(out / files["clean_mask"], before.masks[i].cpu().byte() * 255)
        write_png(out / files["adversarial_mask"], after.masks[i].cpu().byte() * 255)
        rows.append(
            {
                "prompt": prompt.to_dict(),
                "iou_adv_clean": overlap[i],
                "area_clean": float(before.masks[i].float().mean()),
                "area_adv": float(after.masks[i].float().mean()),
                "pred_iou_clean": float(before.iou[i]),
                "pred_iou_adv": float(after.iou[i]),
                **files,
            }
        )
    budget = delivered.budget[0]
    attack_figure(
        to_uint8(clean).numpy(),
        adversarial.numpy(),
        before.masks.cpu().numpy(),
        after.masks.cpu().numpy(),
        out / "figure.png",
        f"{spec_of(attack)['name']} on {segmenter.name}, {threat.label}: IoU with the clean prediction "
        + ", ".join(f"{value:.2f}" for value in overlap),
    )
    result = {
        "schema": RESULT_SCHEMA,
        "redsam": __version__,
        "image": image.name,
        "size": list(clean.shape[1:]),
        "model": {"name": segmenter.name, "family": segmenter.family, "fingerprint": segmenter.fingerprint()},
        "defense": segmenter.defense,
        "attack": spec_of(attack),
        "threat": threat.to_dict(),
        "seed": seed,
        "device": str(segmenter.device),
        "budget": {"linf": budget.linf, "linf_levels": round(budget.linf * 255), "l2": budget.l2, "l0": budget.l0},
        "psnr": _finite(float(psnr(seen, clean))),
        "ssim": float(ssim(seen, clean)),
        "flag": delivered.flags[0],
        "steps": delivered.steps[0],
        "gradients": delivered.gradients,
        "seconds": seconds,
        "reference": "clean prediction",
        "prompts": rows,
        "files": {"adversarial": "adversarial.png", "figure": "figure.png"},
    }
    (out / "result.json").write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return result


def _finite(value: float) -> float | None:
    """PSNR of an unchanged image is infinite, which JSON cannot say."""
    return value if value < float("inf") else None
