"""Maps and masks on which the measures of a foreground are compared, the same on every machine.

    python -m venv oracle && oracle/bin/pip install pysodmetrics==1.6.2
    oracle/bin/python tests/metrics/saliency_cases.py > tests/metrics/saliency_expected.json

prints what PySODMetrics 1.6.2 (MIT licence), an implementation by other people, makes of them without its stretching of
maps (`normalize=False`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 48, 64


def cases() -> dict[str, tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """Name to (map in [0, 1], mask)."""
    rng = np.random.default_rng(11)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    disc = (rows - 20) ** 2 + (columns - 40) ** 2 < 150
    corner = (rows >= HEIGHT - 7) & (columns >= WIDTH - 7)
    two = ((rows - 12) ** 2 + (columns - 12) ** 2 < 60) | ((rows - 34) ** 2 + (columns - 48) ** 2 < 90)
    noise = rng.random((HEIGHT, WIDTH))
    near = np.clip(1 / (1 + np.exp((np.hypot(rows - 22, columns - 37) - 12) / 1.5)), 0, 1)
    return {
        "noise": (noise, disc),
        "near": (near, disc),
        "exact": (disc.astype(np.float64), disc),
        "opposite": (1.0 - disc, disc),
        "corner": (near, corner),
        "two objects": (0.7 * two + 0.3 * noise, two),
        "even": (np.full((HEIGHT, WIDTH), 0.3), disc),
        "empty mask": (near, np.zeros_like(disc)),
        "full mask": (near, np.ones_like(disc)),
        "one pixel": (near, (rows == 5) & (columns == 60)),
    }


def main() -> None:
    """Print the other implementation's numbers."""
    import json

    import py_sod_metrics as sod

    out = {}
    for name, (p, g) in cases().items():
        made = {
            "s_measure": sod.Smeasure(),
            "e_measure": sod.Emeasure(),
            "weighted_f": sod.WeightedFmeasure(),
            "mae": sod.MAE(),
        }
        for metric in made.values():
            metric.step(p, g, normalize=False)
        found = {key: metric.get_results() for key, metric in made.items()}
        out[name] = {
            "s_measure": float(found["s_measure"]["sm"]),
            "e_measure": float(np.mean(found["e_measure"]["em"]["curve"])),
            "weighted_f": float(found["weighted_f"]["wfm"]),
            "mae": float(found["mae"]["mae"]),
        }
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
