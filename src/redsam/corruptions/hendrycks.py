"""What the fifteen classic corruptions share: their source, and the rule for images of other sizes.

The constants beside each are those of the authors' ImageNet-C, made of 224 x 224 crops. At another size a length in
pixels (radius, deviation of a blur, shift, size of a flake) is multiplied by shorter side / 224 (`base.scale`),
so that a photograph looks the same at any resolution. What is drawn for each pixel by the sensor (Gaussian, shot and
impulse noise), strengths of colour, fractions of a side and JPEG's 8 x 8 blocks stay as published.
"""

from __future__ import annotations

from typing import Any

PUBLISHED: dict[str, Any] = {
    "paper": "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations (Hendrycks, Dietterich)",
    "year": 2019,
    "url": "https://arxiv.org/abs/1903.12261",
}
