"""Rows of UAD's benchmark, which RGA shares: computed from UAD's official per-prompt logs (anything-unsegmentable at
2dd65e0): 1000 SA-1B images, 79,672 prompts, eps 8/255, source SAM-B; IoU against ground truth. RGA's own rows were not
to be had."""

from __future__ import annotations

from redsam.bench.spec import JsonDict
from redsam.studies.tables import published

SOURCE = "UAD's official logs, SA-1B, source SAM-B"
REFERENCE = "ground truth"
VICTIMS = ("SAM-B", "SAM-L", "SAM-H", "FastSAM")

# mIoU, ASR@50, ASR@10 in percent for each of VICTIMS, and the sd over prompts where the logs' summary has it, on SAM-B.
TRANSFER: dict[str, tuple[tuple[float, float, float], ...]] = {
    "attack-sam-k": ((68.07, 24.10, 6.87), (77.14, 14.46, 4.13), (78.71, 12.93, 3.51), (38.13, 59.90, 48.43)),
    "tap": ((63.49, 29.69, 13.12), (75.12, 16.96, 6.68), (77.36, 14.55, 5.31), (37.67, 60.53, 49.45)),
    "ilpd": ((63.21, 30.15, 13.09), (75.17, 16.82, 6.59), (77.52, 14.37, 5.18), (37.84, 60.30, 49.02)),
    "aa": ((61.06, 32.48, 13.11), (70.70, 21.49, 8.67), (72.87, 19.13, 7.39), (32.64, 65.86, 55.10)),
    "pata": ((61.36, 32.23, 13.04), (70.81, 21.27, 8.62), (73.07, 18.66, 7.30), (32.74, 65.66, 54.97)),
    "pata++": ((61.54, 32.00, 12.94), (71.02, 21.16, 8.38), (73.16, 18.84, 7.22), (32.85, 65.69, 54.65)),
    "uad": ((51.53, 43.89, 20.79), (66.07, 26.44, 12.27), (68.96, 23.42, 10.23), (28.83, 69.95, 59.63)),
}
SD = {
    "attack-sam-k": 28.65,
    "tap": 32.58,
    "ilpd": 32.54,
    "aa": 32.33,
    "pata": 32.31,
    "pata++": 32.22,
    "uad": 34.00,
}
# Victim SAM-B: mIoU with points, with boxes.
SPLIT = {"uad": (37.64, 74.68), "aa": (49.95, 79.58), "attack-sam-k": (58.54, 83.93)}
# First 40 images: mIoU at eps 4, 8, 12, 16 / 255.
LEVELS = (4, 8, 12, 16)
BUDGETS = {
    ("uad", "SAM-B"): (69.74, 54.71, 42.35, 33.84),
    ("aa", "SAM-B"): (73.98, 64.22, 57.10, 49.06),
    ("pata", "SAM-B"): (75.07, 64.36, 54.50, 48.79),
    ("pata++", "SAM-B"): (74.45, 66.38, 54.96, 50.36),
    ("attack-sam-k", "SAM-B"): (75.12, 68.87, 67.54, 66.45),
    ("uad", "SAM-H"): (79.50, 72.35, 65.45, 57.28),
}


def share(percent: float | None) -> float | None:
    """Percent to [0, 1]."""
    return None if percent is None else round(percent / 100, 6)


def transfer_rows() -> list[JsonDict]:
    """Attack, victim, prompt kind and the numbers, in [0, 1]."""
    rows = []
    for attack, per_victim in TRANSFER.items():
        for victim, (miou, asr50, asr10) in zip(VICTIMS, per_victim, strict=True):
            sd = SD[attack] if victim == "SAM-B" else None
            rows.append(
                _row(attack, victim, "all", miou)
                | {"n_prompts": 79672, "sd": share(sd), "asr50": share(asr50), "asr10": share(asr10)}
            )
        rows += [
            _row(attack, "SAM-B", kind, v) for kind, v in zip(("point", "box"), SPLIT.get(attack, ()), strict=False)
        ]
    return rows


def _row(attack: str, victim: str, kind: str, miou: float) -> JsonDict:
    return published(
        SOURCE, attack=attack, victim=victim, prompt=kind, n_images=1000, miou=share(miou), reference=REFERENCE, eps=8
    )


def budget_rows() -> list[JsonDict]:
    """Attack, victim, eps in grey levels and mIoU over points and boxes together."""
    return [
        published(SOURCE, attack=attack, victim=victim, prompt="all", eps=eps, n_images=40, miou=share(miou),
                  reference=REFERENCE)
        for (attack, victim), values in BUDGETS.items()
        for eps, miou in zip(LEVELS, values, strict=True)
    ]  # fmt: skip
