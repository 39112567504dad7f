"""RGA: features pushed away from the image and towards a map of its own regions (Liu et al., 2024)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from redsam.attacks.base import Attack
from redsam.attacks.goal import Goal
from redsam.attacks.gradient import follow
from redsam.attacks.loop import Differentiate, Evaluate, Evaluation, Parts, State, Trace
from redsam.attacks.parts import fixed_step, momentum, uniform
from redsam.attacks.region_map import DILATIONS, GRID_RATE, Overlap, paint, painting_order
from redsam.attacks.task import Task
from redsam.attacks.transforms import average, chain, ranked_at_iterate, scaled
from redsam.errors import InputError
from redsam.models.automatic import automatic_masks
from redsam.objectives import feature_cosine
from redsam.registry import Entry, register
from redsam.types import from_uint8, to_uint8


@register("attack", "rga", paper="Region-Guided Attack on the Segment Anything Model (Liu et al.)", year=2024,
          url="https://arxiv.org/abs/2411.02974", norms=("linf",), kind="transfer", noisy=True,
          knowledge=("white-box", "transfer"), cost="3 x steps gradients + one automatic segmentation")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class RGA(Attack):
    """Region-guided attack: min cos(f(T(x)), f(clean)) - weight * cos(f(T(x)), f(map)), f the final embedding.

    The map is painted once from the automatic masks of the clean image (region_map.py) with colours from the image's
    seed. T is a random similarity transformation (RST), one per step; the gradient is the mean over `copies` images
    x / 2^s, s = 0, 1, ... (SI); momentum `decay` over the l1-normalised gradient; a random start. Switches for an
    ablation: use_map (False drops the term with the map), use_rst, use_si, decay=0.
    step_size in the threat's units, None is eps / 4. grid: points per side of the automatic segmentation; a small model
    does with fewer, and a weak one needs lower thresholds to find any mask: an image without one gets a map cut by the
    grid all over. overlap: which of two overlapping small masks is painted first; the paper does not say, "first" (the
    generator's order) is what its code does.

    As published: 40 steps, 2/255 at eps 8/255, decay 0.4, beta 0.01, copies 3, weight 1, grid 64, pred_iou_thresh 0.88,
    stability_score_thresh 0.95, grid_rate 0.1, dilations 50.
    Deviation: T is a true similarity of the picture about its centre, where the code scales only the cosine terms of
    its rotation, in the padded square; dilations shrink with the image (the code's are at 1024 pixels); colours have no
    zero channel; the budget holds in original pixels (space "model" is as published);
    losses in the log are those of the transformed image, unless keep_best or stop_at ask for one more pass a step.
    """

    steps: int = 40
    step_size: float | None = None
    decay: float = 0.4
    weight: float = 1.0
    beta: float = 0.01
    copies: int = 3
    grid: int = 64
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    grid_rate: float = GRID_RATE
    dilations: int = DILATIONS
    overlap: Overlap = "first"
    use_map: bool = True
    use_rst: bool = True
    use_si: bool = True
    keep_best: bool = False

    def __post_init__(self) -> None:
        if min(self.steps, self.copies, self.grid) < 1:
            raise InputError(
                f"steps={self.steps}, copies={self.copies}, grid={self.grid}: nothing to do.", hint="Give 1 or more."
            )
        if self.overlap not in get_args(Overlap):
            raise InputError(f"There is no overlap '{self.overlap}'.", hint=f"Known: {', '.join(get_args(Overlap))}.")
        if not 0 < self.grid_rate <= 1 or self.dilations < 0 or not 0 <= self.beta < 1:
            raise InputError(
                f"grid_rate={self.grid_rate:g}, dilations={self.dilations}, beta={self.beta:g} cannot be meant.",
                hint=f"As published: {GRID_RATE}, {DILATIONS}, 0.01.",
            )

    def reads_masks(self) -> bool:
        """Prompt-free."""
        return False

    def region_map(self, task: Task, row: int) -> Tensor:
        """3xHxW float in [0, 1]: the map of one image of the task, painted from its automatic masks."""
        # The model's own frame is not on the 8-bit lattice, and the exact preprocessing asks for that.
        image = from_uint8(to_uint8(task.clean[row]))
        found = automatic_masks(
            task.segmenter, image, points_per_side=self.grid, pred_iou_thresh=self.pred_iou_thresh,
            stability_score_thresh=self.stability_score_thresh,
        )  # fmt: skip
        return paint(
            found.masks, task.subset([row]).generators("region-map")[0], order=painting_order(found, self.overlap),
            grid_rate=self.grid_rate, dilations=self.dilations,
        )  # fmt: skip

    def evaluator(self, task: Task) -> Evaluate:
        """The feature loss; prompts and references are looked at for `stop_at` only."""
        anchors = [task.clean]
        if self.use_map:
            anchors.append(torch.stack([self.region_map(task, row) for row in range(len(task))]).to(task.clean))
        with torch.no_grad():
            features = torch.stack([task.encode(images).features for images in anchors], dim=1)

        def loss(adversarial: Tensor, fixed: Tensor) -> Tensor:
            """BxCxhxw against Bx(1 or 2)xCxhxw: clean, map."""
            value = feature_cosine(adversarial, fixed[:, 0])
            return value - self.weight * feature_cosine(adversarial, fixed[:, 1]) if self.use_map else value

        entry = Entry(kind="objective", name="region-guided", obj=loss, meta={"on": "feature"})
        return Goal(task=task, objective=entry, select=self.select, stop_at=self.stop_at, clean=features)

    def parts(self, task: Task) -> Parts:
        """Random start, gradient over transformed copies, momentum, sign step."""
        size = self.step_size if self.step_size is not None else task.threat.eps / 4
        copies, beta = self.copies if self.use_si else 1, self.beta if self.use_rst else 0.0
        fill = task.segmenter.frame(*task.clean.shape[-2:]).mean
        parts = Parts(
            steps=self.steps, start=uniform, rule=fixed_step(size), gradients=(momentum(self.decay),),
            differentiate=copies_gradient(copies, beta=beta, fill=fill), keep_best=self.keep_best, passes=copies,
        )  # fmt: skip
        return ranked_at_iterate(parts, self.keep_best or self.stop_at is not None)

    def search(self, task: Task) -> Trace:
        """The gradient loop."""
        return follow(self.evaluator(task), task, self.parts(task))


def copies_gradient(copies: int, *, beta: float, fill: Sequence[float]) -> Differentiate:
    """SI and RST: the mean over s < copies of the gradients at T(x / 2^s), one T per step and image."""
    dimmed = [scaled(0.5**s) for s in range(copies)]

    def differentiate(evaluate: Evaluate, state: State) -> tuple[Evaluation, Tensor]:
        if not beta:
            return average(dimmed)(evaluate, state)
        warp = draw_similarity(state.generators, beta, fill)
        return average([chain(copy, lambda x, _: warp(x)) for copy in dimmed])(evaluate, state)

    return differentiate


def draw_similarity(
    generators: Sequence[torch.Generator], beta: float, fill: Sequence[float]
) -> Callable[[Tensor], Tensor]:
    """A random similarity for each image: shift U(-b, b) of half the long side along x and y, rotation U(-b, b) of 90
    degrees, scale U(1 - b, 1 + b)."""
    draws = beta * (2 * torch.stack([torch.rand(4, generator=g) for g in generators]) - 1)

    def warp(images: Tensor) -> Tensor:
        reach = max(images.shape[-2:]) / 2
        return similarity(images, draws[:, :2] * reach, draws[:, 2] * math.pi / 2, 1 + draws[:, 3], fill)

    return warp


def similarity(images: Tensor, shift: Tensor, angle: Tensor, scale: Tensor, fill: Sequence[float]) -> Tensor:
    """Bx3xHxW, bilinear and differentiable: the value at q (in pixels from the centre) comes from scale R(angle) q +
    shift. shift: Bx2 (x, y) pixels. angle: B radians. scale: B. fill: RGB of what lies outside; a model's own mean is
    what zero padding after normalising shows."""
    height, width = images.shape[-2:]
    cos, sin = scale * angle.cos(), scale * angle.sin()
    # affine_grid has both axes from -1 to 1, so a rotation of a picture that is no square carries its aspect.
    rows = [
        torch.stack([cos, -sin * height / width, 2 * shift[:, 0] / width], 1),
        torch.stack([sin * width / height, cos, 2 * shift[:, 1] / height], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1).to(images), list(images.shape), align_corners=False)
    outside = images.new_tensor(list(fill))[:, None, None]
    return F.grid_sample(images - outside, grid, padding_mode="zeros", align_corners=False) + outside
